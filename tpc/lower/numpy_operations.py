"""How NumPy code computes what: functions of np, or of the runtime that a module names rt."""

INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
OPERATIONS = {
    "add": "np.add", "subtract": "np.subtract", "multiply": "np.multiply", "divide": "np.divide", "power": "np.power",
    "negative": "np.negative", "square": "np.square", "sqrt": "np.sqrt", "reciprocal": "np.reciprocal", "exp": "np.exp",
    "log": "np.log", "sin": "np.sin", "cos": "np.cos", "tanh": "np.tanh", "abs": "np.abs", "sign": "np.sign",
    "arccos": "np.arccos", "arcsin": "np.arcsin", "arctan2": "np.arctan2", "maximum": "np.maximum",
    "minimum": "np.minimum",
    "sinh": "np.sinh", "cosh": "np.cosh", "asinh": "np.arcsinh", "log1p": "np.log1p", "expm1": "np.expm1",
    "rsqrt": "rt.rsqrt", "erf": "rt.erf", "erfc": "rt.erfc", "step": "rt.step", "relu": "rt.relu", "clip1": "rt.clip1",
    "softplus": "rt.softplus", "dawson": "rt.dawson", "erfcx": "rt.erfcx", "gap": "rt.gap",
    "inverse": "rt.inverse", "root_sum": "rt.root_sum",
}  # fmt: skip
