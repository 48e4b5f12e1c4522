"""Programs with numbers in them: networks of finite width, drawn, evaluated and trained."""
