"""What the project computes in place of a dependency's function is still what that function computes.

Other tests compare results. These compare code: a digest of each replaced function, without docstring, comments and
annotations, so that a new release says in words what to look at before its results differ somewhere in training.
"""

import ast
import hashlib
import importlib
import inspect
import textwrap

import pytest

REPLACED = [
    (
        "diffusers.models.resnet", "ResnetBlock2D.forward",
        # Of 0.32, of 0.33 to 0.36, and later: they differ in how the input lies in memory.
        {"c15890e93878", "b1e19b913119", "bf042f9657f3"},
        "z1g/networks/fused/modules.py, _residual",
    ),
    ("diffusers.models.upsampling", "Upsample2D.forward", {"cd9e6af13624"}, "z1g/networks/fused/modules.py, _enlarged"),
    ("diffusers.models.activations", "GEGLU.forward", {"1b45d69ee95e"}, "z1g/networks/fused/modules.py, _gated"),
    ("diffusers.models.activations", "GEGLU.gelu", {"af43e22c89e0"}, "z1g/networks/fused/modules.py, _gated"),
    (
        "diffusers.models.transformers.transformer_2d", "Transformer2DModel._get_output_for_continuous_inputs",
        {"3baa594f4d44"}, "z1g/networks/fused/modules.py, _leave_tokens",
    ),
    (
        "diffusers.models.attention_processor", "AttnProcessor2_0.__call__", {"c93d8cdc6095"},
        "z1g/networks/wide_attention.py, WideAttention",
    ),
    ("lpips.lpips", "LPIPS.forward", {"6ddaf887e2dd"}, "z1g/networks/fused/lpips.py, distance"),
    ("lpips", "normalize_tensor", {"b5c94a710389"}, "z1g/networks/fused/lpips.py, distance"),
    ("stlpips_pytorch.stlpips", "LPIPS.forward", {"732b45a12fa7"}, "z1g/networks/fused/lpips.py, distance"),
    ("stlpips_pytorch.utils", "normalize_tensor", {"b5c94a710389"}, "z1g/networks/fused/lpips.py, distance"),
]  # fmt: skip


def digest(source: str) -> str:
    """Of a function's code."""
    (function,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(function, ast.FunctionDef)
    if ast.get_docstring(function) is not None:
        del function.body[0]
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            node.annotation = None
    function.returns = None
    return hashlib.sha256(ast.unparse(function).encode()).hexdigest()[:12]


@pytest.mark.parametrize(("module", "name", "known", "where"), REPLACED, ids=[f"{m}.{n}" for m, n, _, _ in REPLACED])
def test_what_is_replaced_is_what_it_was(module: str, name: str, known: set[str], where: str) -> None:
    package = module.partition(".")[0]
    version = getattr(importlib.import_module(package), "__version__", "of this environment")
    found: object = importlib.import_module(module)
    for part in name.split("."):
        assert hasattr(found, part), f"{package} {version} has no {module}.{name} any more, which {where} replaces"
        found = getattr(found, part)
    now = digest(inspect.getsource(found))  # type: ignore[arg-type]
    assert now in known, (
        f"{package} {version} changed {module}.{name}, which {where} replaces. Compare the two, bring ours in step, "
        f"then add the digest {now!r} here and raise the upper bound of {package} in pyproject.toml"
    )


def test_digests_see_code_only() -> None:
    plain = digest("def f(a, b=1):\n    return a + b\n")
    assert digest('    def f(a: int, b: "X" = 1) -> int:\n        """Words."""\n        return a + b  # why\n') == plain
    assert digest("def f(a, b=1):\n    return a - b\n") != plain
