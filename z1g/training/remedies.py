"""Lines of a configuration with which training takes less memory than rounding can save."""


def remedies(stage: str, *, state: str, average: bool, adapters: bool) -> str:
    """What to do if training does not fit into memory though one object at once is trained, with lines of YAML.

    state: `train.optimizer.state`. average: whether `train.ema` is set. adapters: whether adapters can be trained
    instead of all weights. These options change results, so that they are for the user to choose.
    """
    lines = []
    if state != "int8":
        less = {"float32": 6, "bfloat16": 2}[state]
        lines.append(
            f"{stage}: {{train: {{optimizer: {{state: int8}}}}}}  # 8-bit Adam: {less} bytes a trained weight less"
        )
    if average:
        lines.append(f"{stage}: {{train: {{ema: null}}}}  # no average of the weights: 4 bytes a trained weight less")
    if adapters:
        lines.append(f"{stage}: {{finetune: {{kind: lora}}}}  # adapters, for trained networks")
    if not lines:
        return "Use a GPU with more memory or smaller networks"
    listed = "\n  ".join(lines)
    return (
        "Use a GPU with more memory, smaller networks, or one of these lines in the ablation, which change results "
        f"and with them the stage's id:\n  {listed}"
    )
