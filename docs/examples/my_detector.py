"""POTO's network with a matcher, an augmentation, a hook and an evaluator of one's own (docs/extend.md)."""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from detectron2.engine import HookBase

from la_det import evaluation, geometry, model_zoo, structures
from la_det.steps import candidates, select


class BestNearest:  # of the nearest location of each level, an object gets the one whose predicted box fits best
    def __call__(self, predictions, targets, *, score, progress):
        pairs = candidates.every_pair(candidates.nearest_priors(predictions.priors, targets, 1), targets)
        iou = geometry.aligned_iou(predictions.boxes_at(pairs.image, pairs.prior), targets.boxes[pairs.gt])
        return structures.Assignment(select.best_of_each(pairs, iou, predictions.priors, targets))


class Grey(T.Augmentation):
    def get_transform(self, image):
        return T.ColorTransform(lambda pixels: pixels.mean(2, keepdims=True).repeat(3, 2).astype(pixels.dtype))


class Countdown(HookBase):  # one more curve in metrics.json and TensorBoard
    def after_step(self):
        self.trainer.storage.put_scalar("iterations_left", self.trainer.max_iter - self.trainer.iter - 1)


class WithLoose(evaluation.COCOEvaluator):  # one more metric: AP of boxes that only fit roughly
    def evaluate(self):
        return {task: m | {"loose": m["AP50"] - m["AP75"]} for task, m in super().evaluate().items()}


_recipe = model_zoo.get_config("POTO/poto_r18_fpn_shapes_tiny")
model, dataloader, train = _recipe.model, _recipe.dataloader, _recipe.train
optimizer, lr_multiplier = _recipe.optimizer, _recipe.lr_multiplier
model.criteria[0].matcher = L(BestNearest)()
dataloader.train.mapper.augmentations.append(L(T.RandomApply)(tfm_or_aug=L(Grey)(), prob=0.5))
dataloader.evaluator = L(WithLoose)(dataset_name="${..test.dataset.names}")
train.hooks = [L(Countdown)()]
