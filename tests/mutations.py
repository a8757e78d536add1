"""One-line changes of la_det that the fast tests must notice; `mutate.py` applies them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One change.

    Attributes:
        file: path in the checkout.
        old: text that the file has exactly once.
        new: its replacement.
        tests: files in which a test must fail, with pytest's option -k where not all of a file's are of interest.
        equivalent: why the change alters nothing that matters; empty where a test must fail.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    equivalent: str = ""

    def apply(self, text: str) -> str:
        """The changed file; raises ValueError unless `old` occurs once."""
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} has {self.old!r} {text.count(self.old)} times; adapt tests/mutations.py")
        return text.replace(self.old, self.new)


MATCHERS, CRITERIA, STEPS = "la_det/matchers", "la_det/modeling/criteria", "la_det/steps"
GOLDEN = "tests/golden/test_golden.py"
RULES = "tests/matchers/test_defcn_rules.py"

NEVER_EQUAL = "no difference of coordinates from 4 on is exactly the margin 0.01, in single precision"

# File -> tests that look at it, and changes: (old, new), or (old, new, why it is equivalent).
_TABLE: dict[tuple[str, ...], list[tuple[str, ...]]] = {
    (f"{MATCHERS}/fcos.py", f"{RULES} -k 'fcos'", "tests/matchers/test_atss.py -k fcos", f"{GOLDEN} -k 'poto'"): [
        ("-targets.areas[pairs.gt]", "targets.areas[pairs.gt]"),
        ("ltrb.amin(-1) > self.margin", "ltrb.amin(-1) >= self.margin", NEVER_EQUAL),
        ("center_radius: float = 1.5", "center_radius: float = 1.4"),
        ("boxes=priors.inset(targets.boxes)", "boxes=targets.boxes"),
    ],
    (f"{MATCHERS}/atss.py", "tests/matchers/test_atss.py", f"{RULES} -k 'aux'", f"{GOLDEN} -k 'dynamic_atss'"): [
        ("topk: int = 9", "topk: int = 8"),
        ("margin: float = 0.01", "margin: float = 0.0"),
    ],
    (f"{STEPS}/select/size_ranges.py", f"{RULES} -k 'fcos or center or ranges'", f"{GOLDEN} -k 'poto'"): [
        ("(low <= reach)", "(low < reach)"),
        ("(reach <= high)", "(reach < high)"),
        ("ltrb.amax(-1)", "ltrb.mean(-1)"),
        ("longest * 0.499 <= high", "longest * 0.6 <= high"),
        ("longest * 1.001 >= low", "longest * 0.9 >= low"),
        ("(64, 128)", "(64, 127)"),
    ],
    (
        f"{STEPS}/select/adaptive_threshold.py",
        "tests/matchers/test_atss.py",
        f"{RULES} -k 'aux'",
        f"{GOLDEN} -k 'dynamic_atss'",
    ): [
        ("iou >= threshold.unsqueeze(1)", "iou > threshold.unsqueeze(1)"),
        ("ltrb.amin(-1) > margin", "ltrb.amin(-1) >= margin"),
        ("torch.std_mean(iou, -1)", "torch.std_mean(iou, -1, correction=0)"),
        ("return mean + std", "return mean"),
        ("priors.inset(targets.boxes).unsqueeze(1)", "targets.boxes.unsqueeze(1)"),
        ("among=positive", "among=None"),
        ("best_in_group(location, iou.flatten()", "best_in_group(location, -iou.flatten()"),
        ("return iou.new_full(iou.shape[:-1], torch.nan)", "return iou.new_zeros(iou.shape[:-1])"),
    ],
    (f"{STEPS}/score/matching_quality.py", f"{RULES} -k 'poto or aux'"): [
        ("p ** (1 - alpha) * iou**alpha", "p**alpha * iou ** (1 - alpha)"),
    ],
    (f"{MATCHERS}/dynamic_atss.py", "tests/matchers/test_atss.py", f"{GOLDEN} -k 'dynamic_atss and datss'"): [
        ("mean_plus_std(iou).sum(0)", "mean_plus_std(iou.sum(0))"),
        ("target=iou[1]", "target=iou[0]"),
        ("iou.sum(0), threshold", "iou[1], threshold"),
        ("topk: int = 9", "topk: int = 8"),
        ("margin: float = 0.01", "margin: float = 0.0"),
    ],
    (f"{STEPS}/candidates/nearest.py", "tests/steps/candidates/test_nearest.py"): [
        ("(a + 1) * (b + 1) <= k", "(a + 1) * (b + 1) < k"),
        ("priors.offset + k / 2", "priors.offset + k / 2 + 1"),
        ("centers - priors.shift if", "centers if"),
        ("max(w - k, 0)", "max(w - k - 1, 0)"),
        ("<< 32) | cell", "<< 32) | -cell"),
    ],
    (f"{MATCHERS}/topk_iou.py", "tests/matchers/test_atss.py -k topk", f"{GOLDEN} -k 'positive_types'"): [
        ("1 / (1000 * _largest", "1 / (100 * _largest"),
        ("ltrb.amin(-1) > self.margin", "ltrb.amin(-1) >= self.margin", NEVER_EQUAL),
        ("iou - distance * penalty[pairs.gt]", "iou"),
        ("priors.inset(targets.boxes)[pairs.gt]", "targets.boxes[pairs.gt]"),
        ("topk: int = 9", "topk: int = 8"),
    ],
    (f"{MATCHERS}/dw.py", "tests/matchers/test_dw.py", f"{GOLDEN} -k 'dw'"): [
        ("BETA = 5.0", "BETA = 4.9"),
        ("MU, MU_SUM = 5.0, 3.0", "MU, MU_SUM = 5.0, 5.0"),
        ("SIGMA = 1.11", "SIGMA = 1.1"),
        ("iou >= 0.5", "iou > 0.5", "w_neg of an IoU of 0.5 is 1 in either case"),
        ("gaussian > 0.3", "gaussian > 0.35"),
        ("_fall(worst).clamp(max=1)", "_fall(worst)"),
        ("eps = 1e-12", "eps = 0.0"),
        ("return 4 / 3 *", "return 5 / 4 *"),
        ('entry, gt, "amax")', 'entry, gt, "sum")'),
        ("(targets.image << 32) + targets.classes", "targets.classes"),
        ("closeness * (MU_SUM * t).exp() * t)", "(MU_SUM * t).exp() * t)"),
    ],
    (f"{CRITERIA}/dw.py", "tests/matchers/test_dw.py", f"{GOLDEN} -k 'dw'"): [
        ("lowered, entries), lowered.sum())", "lowered, entries), lowered.sum(), floor=0.0)"),
        ("loss, _count(decision.targets), weight=self.weight)", "loss, _count(decision.targets))"),
        ("weight=self.weight * BETA", "weight=self.weight"),
        ("float(len(targets))", "float(len(targets) + 1)"),
        ("lowered = 1 - n.weight", "lowered = n.weight"),
    ],
    (f"{MATCHERS}/o2f.py", "tests/matchers/test_o2f.py", f"{GOLDEN} -k 'o2f'"): [
        ("rank < self.topk", "rank <= self.topk"),
        ("few &= q > 0", "few &= q >= 0"),
        ("alpha: float = 0.8", "alpha: float = 0.75"),
        ("soft_weight: float = 0.4", "soft_weight: float = 0.5"),
        ("center_radius: float = 1.5", "center_radius: float = 1.4"),
        ("(0.6, 0.2)", "(0.6, 0.25)"),
        ("epoch / max(self.num_epochs - 1, 1)", "epoch / max(self.num_epochs, 1)"),
        ("progress * self.num_epochs + 1e-9", "progress * self.num_epochs"),
        ("p.masked_fill(certain, 0)", "p"),
        ("1e-9), self.num_epochs - 1)", "1e-9), self.num_epochs)"),
        ("q = q.nan_to_num(nan=torch.inf)", "q = q.nan_to_num(nan=0.0)"),
        ("targets.masks.centroids if self.mask_centers", "targets.centers if self.mask_centers"),
    ],
    (
        f"{CRITERIA}/soft_label.py",
        "tests/modeling/criteria/test_soft_label.py",
        "tests/matchers/test_o2f.py",
        f"{GOLDEN} -k 'o2f'",
    ): [
        ("alpha: float = 0.75", "alpha: float = 0.25"),
        ("(2 * log_z).exp()", "log_z.exp()"),
        ("log_complement.lerp(log_z, t)", "log_z"),
    ],
    (f"{MATCHERS}/poto.py", f"{RULES} -k 'poto or argmax or dropping or nan'", f"{GOLDEN} -k 'poto'"): [
        ("alpha: float = 0.8", "alpha: float = 0.75"),
        ("center_radius: float = 1.5", "center_radius: float = 1.4"),
        ("outside: float = -1.0", "outside: float = 0.0"),
        ("targets, among=inside", "targets"),
        ("if not self.hungarian", "if self.hungarian"),
        ('"drop_missing": self.drop_unmatched', '"drop_missing": False'),
    ],
    (f"{MATCHERS}/one_to_one.py", f"{RULES} -k 'anchor or center or foreground or dropping'", f"{GOLDEN} -k 'poto'"): [
        ("difference.abs() / 2", "difference / 2"),
        ("constant((-1, 0, 1)", "constant((0, 1, 2)"),
        ("alpha: float = 0.25", "alpha: float = 0.3"),
        ("box_weight: float = 2.0", "box_weight: float = 1.5"),
        ("missing=-1e8", "missing=-10"),
        ("- negative[of_pair, cls]", "+ 0 * negative[of_pair, cls]"),
        ("drop_missing=self.drop_unmatched", "drop_missing=False"),
    ],
    (f"{MATCHERS}/poto_aux.py", f"{RULES} -k 'aux'", f"{GOLDEN} -k 'aux'"): [
        ("margin=0.0", "margin=0.01"),
        ("topk: int = 9", "topk: int = 8"),
        ("~(q <= 0)", "(q > 0)", "NaN shows elsewhere: logits in the losses, and boxes stop POTO"),
        ("alpha: float = 0.8", "alpha: float = 0.75"),
    ],
    (
        f"{STEPS}/select/linear_assignment.py",
        "tests/steps/select/test_linear_assignment.py",
        "tests/matchers/test_hungarian.py",
    ): [
        ("if bound > to_free", "if bound >= to_free"),
        ("if to_missing <= shortest", "if to_missing < shortest"),
        ("sink = max(free, key=order.index)", "sink = min(free, key=order.index)"),
        ("min(nearest, key=order.index)", "max(nearest, key=order.index)"),
        ("last = min(missing_step, step[sink])", "last = max(missing_step, step[sink])"),
        ("v.get(column, 0.0) - (shortest - x)", "v.get(column, 0.0)"),
        ("            order.remove(column)\n", ""),
        ("column not in reached and through", "through"),
        (" | (cost == self.missing)] = -1", "] = -1"),
        ("[value > missing]", "[value >= missing]"),
        ("self.u[row] += shortest - reached[self.column_of[row]]", "pass"),
        ("if num_rows > num_priors", "if num_rows >= num_priors", "SciPy's answer either way"),
        ("(num_rows + 1) * (np.ptp(finite) + 1)", "1"),
        ("return matched, (rest > -torch.inf)", "return matched, (rest > torch.inf)"),
    ],
    (f"{MATCHERS}/hungarian.py", "tests/matchers/test_hungarian.py", f"{GOLDEN} -k 'hungarian'"): [
        ("rest = rest.index_fill(0, gts, torch.inf)", "pass"),
        ("FEW = 80", "FEW = 40", "only how many priors are looked for at first"),
    ],
    (
        f"{STEPS}/score/detr_cost.py",
        "tests/matchers/test_hungarian.py",
        "tests/matchers/test_onenet.py",
        f"{GOLDEN} -k 'hungarian or fcos_crowded or retina_basic'",
    ): [
        ("eps: float = 1e-12", "eps: float = 1e-8"),
        ("ALPHA = 0.25", "ALPHA = 0.3"),
        ("class_weight: float = 2.0", "class_weight: float = 1.0"),
        ("l1_weight: float = 5.0", "l1_weight: float = 4.0"),
        ("giou_weight: float = 2.0", "giou_weight: float = 1.0"),
        ("corners: bool = False", "corners: bool = True"),
        ("masked_fill_(repeated, torch.inf)", "masked_fill_(repeated, 0.0)"),
        ("(1 - p).square()", "(1 - p)"),
        ("clamp(min=0).sum(0)", "sum(0).abs()"),
        ("(bound <= limit.unsqueeze(1))", "(bound < limit.unsqueeze(1) - 1)"),
        ("scales[targets.image], cost", "scales[:1], cost"),
        ("self.p.amax(-1)", "self.p.amin(-1)"),
        ("relative_boxes(boxes, scales.unsqueeze(1), cost.corners)", "relative_boxes(boxes, scales.unsqueeze(1))"),
        ("targets.image * num_classes + targets.classes", "targets.classes"),
        ("permute(0, 2, 3, 1)", "permute(0, 1, 2, 3)"),
    ],
    (f"{MATCHERS}/onenet.py", "tests/matchers/test_onenet.py", f"{GOLDEN} -k 'onenet'"): [
        ("corners=True, eps=1e-8", "corners=False, eps=1e-8"),
        ('gts, "amax")', 'gts, "amin")'),
        ('pairs.gt, prior, "amin")', 'pairs.gt, prior.remainder(num_priors), "amax")'),
        ("classifies=last[location] == gts", "classifies=None"),
    ],
    ("configs/common/models/onenet_fcos.py", "tests/projects/test_onenet.py", f"{GOLDEN} -k 'fcos_basic'"): [
        ("corners=True, eps=1e-8", "eps=1e-8"),
        ("corners=True, eps=1e-8", "corners=True"),
        ("loss_ce=L(FocalLoss)(weight=2.0)", "loss_ce=L(FocalLoss)(weight=1.0)"),
        ("loss_giou=L(GIoULoss)(weight=2.0)", "loss_giou=L(GIoULoss)(weight=1.0)"),
        ("weight=5.0, corners=True", "weight=4.0, corners=True"),
        ("weight=5.0, corners=True", "weight=5.0"),
        ("cap=False", "cap=True"),
    ],
    (f"{MATCHERS}/ota.py", "tests/matchers/test_ota.py", f"{GOLDEN} -k 'ota/ota_'"): [
        ("center_radius: float = 2.5", "center_radius: float = 2.0"),
        ("topk: int = 20", "topk: int = 19"),
        ("reg_weight: float = 1.5", "reg_weight: float = 1.4"),
        ("alpha: float = 0.25", "alpha: float = 0.3"),
        ("eps: float = 0.1", "eps: float = 0.09"),
        ("iterations: int = 50", "iterations: int = 10"),
        ("iterations: int = 50", "iterations: int = 100"),
        ("OUTSIDE = 1e6", "OUTSIDE = 0.0"),
        ("\nMARGIN = 0.01", "\nMARGIN = 0.0"),
        (".floor_().clamp_(min=1)", ".round_().clamp_(min=1)"),
        (".floor_().clamp_(min=1)", ".floor_()"),
        ("clamp(min=LEAST)", "clamp(min=-1e6)"),
        ("positive - negative).flatten()", "positive).flatten()"),
        ("if len(bare_gts)", "if False"),
        ("nan_to_num(nan=torch.inf)", "nan_to_num(nan=0.0)"),
    ],
    (f"{STEPS}/select/transport.py", "tests/matchers/test_ota.py", f"{GOLDEN} -k 'ota/ota_'"): [
        ("            if i:\n", "            if True:\n", "the columns sum to 1 already"),
        ("free.index_add(0, row, plan)", "torch.zeros_like(free).index_add(0, row, plan)"),
        ("scale.masked_fill(free == 0, 0)", "torch.zeros_like(scale)"),
        ("(plan / largest[row])", "plan"),
        ('scatter_reduce_(0, column, log, "amax")[column]', 'scatter_reduce_(0, column, 0 * log, "amax")[column]'),
        ('free.log().clamp_(max=0).scatter_reduce_(0, row, log, "amax")', "torch.zeros_like(free)"),
    ],
    (f"{MATCHERS}/simota.py", "tests/matchers/test_simota.py", f"{GOLDEN} -k 'simota'"): [
        ("center_radius: float = 2.5", "center_radius: float = 2.0"),
        ("inside_box: bool = True", "inside_box: bool = False"),
        ("topk: int = 10", "topk: int = 9"),
        ("box_weight: float = 3.0", "box_weight: float = 2.5"),
        ("iou_eps: float = 1e-7", "iou_eps: float = 1e-6"),
        ("LOWEST_LOG, LEAST_UNION = -100.0", "LOWEST_LOG, LEAST_UNION = -10.0"),
        ("floor_().clamp_(min=1)", "round_().clamp_(min=1)"),
        ("floor_().clamp_(min=1)", "floor_()"),
        # k of a ground truth's own locations, another collision rule
        ("masked_fill(~is_valid, 0), near", "masked_fill(~self.is_own(near, priors, targets), 0), near"),
        ("among = exists & (taken | (takers > 1).index_select(0, location))", "among = taken"),
        ("NOT_OWN * other)  #", "0 * other)  #"),
        ("other * num_own.index_select(0, gt)", "0 * num_own.index_select(0, gt)"),
        ("if len(doubtful)", "if False"),
        ("valid | in_any_box(priors, targets)", "valid"),
        ("2 * gt + other, (-cost)", "2 * gt + other, cost"),
        ("k.nan_to_num_(nan=self.topk)", "k.nan_to_num_(nan=0.0)", "NaN shows in the one location that remains"),
    ],
    (f"{CRITERIA}/simota.py", "tests/modeling/criteria/test_simota.py", f"{GOLDEN} -k 'simota'"): [
        ("weight: float = 5.0", "weight: float = 4.0"),
        ("(1 - iou.square())", "(1 - iou)"),
        ("assignment.target.unsqueeze(1)", "torch.ones_like(assignment.target).unsqueeze(1)"),
        (
            "scope=self.scope)\n\n\n@dataclass(frozen=True)\nclass PositiveClassLoss",
            ")\n\n\n@dataclass(frozen=True)\nclass PositiveClassLoss",
        ),
        ("loss = loss - F.softplus", "loss = loss - 0 * F.softplus"),
    ],
    ("configs/common/models/ota.py", "tests/projects/test_ota.py", f"{GOLDEN} -k 'ota/ota_'"): [
        ("square_root=True", "square_root=False"),
        ("nms_threshold=0.6", "nms_threshold=0.5"),
    ],
    ("configs/common/models/simota.py", "tests/projects/test_ota.py", f"{GOLDEN} -k 'simota'"): [
        ("square_root=True", "square_root=False"),
        ("score_threshold=0.01", "score_threshold=0.05"),
        ("nms_threshold=0.65", "nms_threshold=0.6"),
        ("L(TopClass)()", "L(TopClass)(topk=10)"),
        ("-math.log(99)", "0.0"),
    ],
    ("configs/common/models/simota_square.py", "tests/projects/test_ota.py", f"{GOLDEN} -k 'simota'"): [
        ("center_radius=1.5", "center_radius=2.5"),
        ("inside_box=False", "inside_box=True"),
        ("iou_eps=1e-8", "iou_eps=1e-7"),
        ('"loss_obj", "loss_cls"', '"loss_obj"'),
    ],
    (f"{MATCHERS}/max_iou.py", "tests/matchers/test_max_iou.py", f"{GOLDEN} -k 'date_r'"): [
        ("own_iou >= self.foreground", "own_iou > self.foreground"),
        ("own_iou >= self.background", "own_iou > self.background"),
        (" & (iou > 0)", ""),
        ("foreground: float = 0.5", "foreground: float = 0.55"),
        ("background: float = 0.4", "background: float = 0.45"),
        ('flat, last, "amax"', 'flat, last, "amin"'),
        ("last if self.reassign_best else own", "own if self.reassign_best else last"),
        ("ltrb.amin(-1) > self.margin", "ltrb.amin(-1) > self.margin + 1"),
        ("sizes + pad_to - 1", "sizes"),
        ("clamp(max=self.background)", "clamp(max=self.foreground)"),
        ("priors.inset(targets.boxes)[pairs.gt]", "targets.boxes[pairs.gt]"),
    ],
    (f"{CRITERIA}/boxes.py", "tests/modeling/criteria/test_date_losses.py", f"{GOLDEN} -k 'dynamic_atss'"): [
        (
            "index_select(0, decision.assignment.pairs.image)",
            "index_select(0, 0 * decision.assignment.pairs.image)",
        ),
        ("weight: float = 5.0", "weight: float = 4.0"),
        ("floor: float = 0.0\n", "floor: float = 1.0\n"),
        ("floor=self.floor, eps=FLOAT32_EPS)", "floor=self.floor)", "a ten-millionth of a sum of 1"),
        ("torch.dot(u, iou.clamp", "torch.dot(u.square(), iou.clamp"),
        (
            "aligned_giou(inset(decision.boxes), inset(decision.gt_boxes)",
            "aligned_giou(decision.boxes, decision.gt_boxes",
        ),
    ],
    (f"{MATCHERS}/lla.py", "tests/matchers/test_lla.py", f"{GOLDEN} -k 'lla'"): [
        ("OUTSIDE = 1000.0", "OUTSIDE = 500.0"),
        ("\nMARGIN = 0.01", "\nMARGIN = 0.0"),
        ("topk: int = 10", "topk: int = 9"),
        ("reg_weight: float = 1.5", "reg_weight: float = 1.0"),
        ("alpha: float = 0.25", "alpha: float = 0.3"),
        ("num_images * len(priors)) > 1", "num_images * len(priors)) > 2"),
        ("(cost_inside < OUTSIDE).long()", "(cost_inside < 2 * OUTSIDE).long()"),
        ("best_per_prior(rivals, -cost_inside[decisive]", "best_per_prior(rivals, cost_inside[decisive]"),
        ("pairs[best[rank < k]]", "pairs[best[rank <= k]]"),
        ("negative.sum(1, keepdim=True) - negative + positive", "positive"),
        ("priors=predictions.priors.at_origin()", "priors=predictions.priors"),
        ("clamp_(min=FLOAT32_EPS)", "clamp_(min=1e-3)"),
    ],
    (f"{STEPS}/select/groups.py", "tests/steps/select/test_groups.py"): [
        ("+ 0.0  # of", "# of"),
        ("nan=torch.inf, posinf=torch.inf", "nan=0.0, posinf=torch.inf"),
        ("is_best &= among", "pass"),
        ('len(group)), "amin"', 'len(group)), "amax"'),
        ("rank < limit[group[order]]", "rank <= limit[group[order]]"),
    ],
    (f"{STEPS}/candidates/grid.py", "tests/steps/candidates/test_grid.py", "tests/matchers/test_max_iou.py"): [
        ("points > lower.unsqueeze(-1)", "points >= lower.unsqueeze(-1)", "the window begins beyond this bound"),
        ("points < upper.unsqueeze(-1)", "points <= upper.unsqueeze(-1)"),
        ("((points > lower) & (points < upper)).all(1)", "((points >= lower) & (points < upper)).all(1)"),
        ("index_select(1, place) > 0", "index_select(1, place) > 1"),
        ("constant(((1, -1), (-1, 1))", "constant(((1, -1), (-1, 0))"),
        ("first_cell(lower, strides, priors, torch.le)", "first_cell(lower, strides, priors, torch.lt)"),
        ("first_cell(upper, strides, priors, torch.lt)", "first_cell(upper, strides, priors, torch.le)"),
        ("math.ceil(2 * radius)", "math.ceil(2 * radius) - 1"),
        ("height = height * (width > 0)", "pass", "rectangles without columns have no cells to list"),
        ("(overlap <= shorter).all", "(overlap < shorter / 2).all"),
    ],
    (f"{STEPS}/candidates/overlaps.py", "tests/steps/candidates/test_overlaps.py"): [
        (
            "furthest <= needed.unsqueeze(2)",
            "furthest < needed.unsqueeze(2)",
            "runs that only touch are looked into in vain",
        ),
        ("members <= needed[gt].unsqueeze(2)", "members < needed[gt].unsqueeze(2)"),
        ("gt + gts.start", "gt"),
        ("value=-torch.inf", "value=torch.inf"),
    ],
    ("la_det/losses/background.py", "tests/losses/test_background.py"): [
        ("c.index_fill(0, dropped, -torch.inf)", "c.clone()"),
        ("mul_(2).add_(p).mul_(p_squared)", "mul_(1).add_(p).mul_(p_squared)"),
        (".neg_().maximum(c)", ".neg_()"),
        ("gate_out *= gate_complement", "pass"),
        ("u.mul_(gate_complement)", "pass"),
        ("torch.mul(u, class_complement, out=out)", "out.copy_(u)"),
        ("complement = class_p.mul_(gate_complement).add_(class_complement)", "complement = 1 - p"),
        ("level.masked_fill_(masked, -torch.inf)", "pass"),
        ("for x, i in ((c, index), (f, gate_index))]", "for x, i in ((c, index), (f, gate_index.flip(0)))]"),
    ],
    ("la_det/geometry/iou.py", "tests/geometry/test_iou.py"): [
        ("return intersection / union.clamp_(min=eps)", "return intersection / (union + eps)"),
        ("denominators.clamp(min=eps).reciprocal_()", "denominators.clamp(min=eps / 2).reciprocal_()"),
        ("* inverse * (denominators >= eps)", "* inverse"),
        ("flip(-1) * (raw[:3] >= 0) * of_areas", "flip(-1) * of_areas"),
        ("flip(-1) * (raw[:3] >= 0) * of_areas", "flip(-1) * (raw[:3] > 0) * of_areas"),
        ("(enclosing - union) / enclosing.clamp(min=eps)", "(enclosing - union) / (enclosing + 1)"),
        (".add_(of_a, alpha=2)", ""),
        ("offset.square().sum(-1) / 4", "offset.square().sum(-1) / 2"),
        ("alpha = v / (v - iou + 1 + eps)", "alpha = v / (v - iou + 1.1)"),
        ("4 / math.pi**2 * angle.square()", "2 / math.pi**2 * angle.square()"),
        ("return area[1] + area[-1] - area[0]", "return area[1] + area[-1]"),
    ],
    (f"{CRITERIA}/reduction.py", "tests/modeling/criteria/test_reduction.py"): [
        ("        averaged /= comm.get_world_size()\n", ""),
        ("maximum(floors) + eps", "maximum(floors)"),
        ("torch.where(is_world, averaged, normalisers)", "averaged"),
        ("divisors.masked_fill(divisors == 0, 1)", "divisors"),
    ],
    (
        "la_det/modeling/candidate_rules.py",
        "tests/modeling/test_inference.py",
        "tests/modeling/test_inference_rules.py",
        "tests/modeling/test_mask_inference.py",
        "tests/modeling/test_o2f_inference.py",
    ): [
        ("torch.where(p > threshold, p * quality, -1) if", "p * quality if"),
        ("h * w * a if self.cap", "h * w if self.cap"),
        ("max(self.topk, max_detections)", "self.topk"),
        ("torch.where(p > threshold, p * quality, -1).flatten", "(p * quality).flatten"),
        ("amax(2, keepdim=True)", "mean(2, keepdim=True)"),
        ("prior_of_cell * (k - 1)", "prior_of_cell * k"),
    ],
    (
        "la_det/modeling/inference.py",
        "tests/modeling/test_inference.py",
        "tests/modeling/test_inference_rules.py",
        "tests/modeling/test_o2f_inference.py",
    ): [
        ("valid = p > self.score_threshold", "valid = p >= self.score_threshold"),
        ("** self.quality_exponent", "** 0.5"),
        ("boxes[..., 2:].clamp(min=box_offset)", "boxes[..., 2:].clamp(min=0)"),
    ],
}
MUTATIONS = [
    Mutation(file, old, new, tests, *equivalent)
    for (file, *tests_), changes in _TABLE.items()
    for tests in [tuple(tests_)]
    for old, new, *equivalent in changes
]
