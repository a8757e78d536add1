"""What the official implementations cost on the scene of scene.py, and how much faster this project wants to be.

Measured once on 2 CPU cores with torch 2.13, float32, 2 threads, K = 80 (LLA: K = 1), medians in fresh processes;
`R1_MS` is the reference operation of the same processes, so that the figures carry over to another machine.
"""

from dataclasses import dataclass

R1_MS = 90.5


@dataclass(frozen=True)
class Cost:
    """Milliseconds of the assignment alone, of assignment + loss forward and backward, and peak extra MiB."""

    assignment: float
    total: float
    memory: float


# scheme -> G -> cost
COSTS = {
    "poto": {7: (27, 125, 301), 20: (41, 141, 284), 100: (123, 215, 284), 300: (778, 874, 549)},
    "poto_argmax": {7: (28, 131, 273), 20: (30, 116, 284), 100: (105, 184, 273), 300: (656, 736, 552)},
    "poto_3dmf_aux": {7: (27, 178, 503), 20: (46, 186, 490), 100: (179, 300, 503), 300: (995, 1132, 653)},
    "fcos": {7: (22, 144, 260), 20: (25, 130, 257), 100: (96, 185, 301), 300: (408, 477, 378)},
    "fcos_wo_ctrness": {7: (26, 117, 232), 20: (27, 118, 243), 100: (115, 219, 287), 300: (397, 462, 375)},
    "loss": {7: (573, 673, 253), 20: (1770, 1862, 726), 100: (9624, 9726, 3634), 300: (31220, 31257, 10934)},
    "lla": {7: (13, 21, 31), 20: (37, 50, 90), 100: (305, 364, 378), 300: (857, 980, 1206)},
    "dw_worefine": {7: (6, 76, 209), 20: (14, 143, 317), 100: (90, 769, 1100), 300: (265, 2264, 3160)},
    "o2f": {7: (14, 58, 137), 20: (26, 70, 174), 100: (270, 327, 347), 300: (948, 989, 976)},
    "date_f": {7: (19, 119, 376), 20: (37, 144, 370), 100: (193, 309, 365), 300: (933, 1017, 615)},
    "atss": {7: (17, 93, 232), 20: (24, 103, 216), 100: (69, 141, 244), 300: (356, 424, 407)},
    "dynamic_atss": {7: (17, 92, 274), 20: (25, 97, 260), 100: (119, 201, 302), 300: (526, 606, 539)},
}


def official_cost(scheme: str, num_gts: int) -> Cost | None:
    """The recorded cost, None where nothing was recorded."""
    cost = COSTS.get(scheme, {}).get(num_gts)
    return Cost(*cost) if cost else None


@dataclass(frozen=True)
class Target:
    """How many times as fast, and how many times less memory; None where there is no target."""

    assignment: float | None
    total: float | None
    memory: float | None


def target(scheme: str, num_gts: int) -> Target:
    """The project's target for a scheme at G ground truths per image."""
    assignment = {100: 10.0, 300: 25.0}.get(num_gts)
    if scheme.startswith("dw"):  # its recorded assignment is geometry only
        assignment = None
    if scheme.endswith("aux") and assignment:  # its rule looks at every location
        assignment = 3.0
    return Target(assignment, {20: 2.0, 100: 3.0, 300: 10.0}.get(num_gts), {100: 2.0, 300: 5.0}.get(num_gts))
