r"""The equations of the rules of a derivation in LaTeX, by the names that tpc.limits.origin gives them."""

from __future__ import annotations

from tpc.gaussian.latex import escaped
from tpc.limits.origin import Rule

RULES = {
    "parameter": r"$U = \Omega A$ (input-like), $W = \frac1n \Omega' A^\top X$ (hidden), "
    r"$v = \frac1n A^\top X$ (readout)",
    "matrix product": r"$h' = W x$ with $W = \frac1n \Omega' A^\top X$ has the latent "
    r"$g' = \sum_m A_m\, \mathbb{E}\, x_m x$",
    "projection, by Stein's lemma": r"$\Pi f(h_1, \dots)$ has the latent "
    r"$\mathbb{E}\, z f(\langle z, g_1\rangle, \dots) = \sum_j \mathbb{E}[\partial_j f]\, g_j$",
    "linearity": r"$h = \sum_i c_i h_i$ has the latent $g = \sum_i c_i g_i$",
    "projection": r"$\Pi h = h$ for a G-vector; else $\Pi x$ has the latent $\mathbb{E}\, z\, x(z)$",
    "renamed axes": "the same values, other names of axes",
    "moment of a G-vector": r"$\frac1n h^\top x \to \langle g, \mathbb{E}\, z\, x(z)\rangle$",
    "Master Theorem": r"$\frac1n \sum_\alpha f(x_\alpha, \dots) \to \mathbb{E} f(x(z), \dots)$, "
    r"$z \sim \mathcal{N}(0, I_r)$",
    "finite tensors": r"the limit of $f(s_1, \dots)$ is $f$ of the limits",
    "readout": r"$f = \frac1n v^\top x$ with $v = \frac1n A^\top X$ has the limit $\sum_m A_m\, \mathbb{E}\, x_m x$",
    "tangent kernel": r"$\sum_W \sigma^2 \langle \partial f/\partial W, \partial f'/\partial W\rangle$; "
    r"$\partial f/\partial W = \frac1n y x^\top$ gives $\mathbb{E}\, y y' \cdot \mathbb{E}\, x x'$",
    "gradient": r"$\nabla W = \frac1n \sum dy\, x^\top$: its terms are what a step stores",
    "covariance at initialization": r"$\mathrm{Cov}(W x, W y) = \sigma^2\, \mathbb{E}\, x y$, "
    "distinct weights independent",
    "covariance": r"$\mathrm{Cov}(\langle z, a\rangle, \langle z, b\rangle) = \langle a, b\rangle$ for "
    r"$z \sim \mathcal{N}(0, I_r)$",
    "kernel": r"$\mathbb{E}\, \phi(u)\, \psi(v) = V_{\phi,\psi}(p, q, c)$ for Gaussian $u$, $v$ with variances "
    "$p$, $q$ and covariance $c$",
    "expectation of several variables": r"$\mathbb{E} f(u_1, \dots, u_k)$, covariances $c_{ij}$",
    "folding: symmetric power": r"$\langle \Phi_n(g), \Phi_n(h)\rangle = \langle g, h\rangle^n$",
    "folding: symmetric product": r"the symmetric part of $g_1 \otimes g_2 \otimes \dots$",
    "folding: one slot left open": r"$\langle M, g \otimes \cdot\rangle$",
    "folding: half of a quadratic form": r"$\langle M, g \otimes \cdot\rangle$, shared by both passes",
    "folding: gradient": r"$\partial \langle M, \Phi_n(g)\rangle / \partial g$",
    "log-sum-exp": r"$\log \sum \exp s$",
    "elementwise": "$f$ of every entry",
    "sum": r"$\sum$ over finite axes",
    "sum over atoms": r"$\sum_m$ over the stored rows of a trained weight",
}


def explained(rule: Rule) -> str:
    """What a rule says."""
    return RULES.get(rule.name) or escaped(rule.equation)
