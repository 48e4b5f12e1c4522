import sympy as sp
from tpc.program import functions as F
def parse_expression(text, symbols):
    return sp.sympify(text, locals={**symbols, "relu":F.relu,"step":F.step,"sign":F.sign,"absolute":F.absolute})
def parse_nonlinearity(text):
    return parse_expression(text, {"x":F.X})
