"""POTO's network with a matcher, an augmentation, a hook and an evaluator of one's own (docs/extend.md)."""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from detectron2.engine import HookBase

from la_det import evaluation, model_zoo, structures
from la_det.steps import candidates, select


class Nearest:  # an object gets the nearest location of each level; the smaller of two objects wins
    def __call__(self, predictions, targets, *, score, progress):
        pairs = candidates.every_pair(candidates.nearest_priors(predictions.priors, targets, 1), targets)
        best = select.best_per_prior(pairs, -targets.areas[pairs.gt], predictions.priors, targets.num_images)
        return structures.Assignment(pairs[best])


class Negative(T.Augmentation):  # every second image gets inverted colours
    def get_transform(self, image):
        return T.ColorTransform(lambda pixels: 255 - pixels) if self._rand_range() < 0.5 else T.NoOpTransform()


class Countdown(HookBase):  # one more curve in metrics.json and TensorBoard
    def after_step(self):
        self.trainer.storage.put_scalar("iterations_left", self.trainer.max_iter - self.trainer.iter - 1)


class Precise(evaluation.COCOEvaluator):  # COCO's evaluation, with one more row
    def evaluate(self):
        results = super().evaluate()
        return results | {"precise": {"AP75": results["bbox"]["AP75"]}} if results else results


_keys = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
model, dataloader, optimizer, lr_multiplier, train = map(model_zoo.get_config("POTO/poto_r18_fpn_shapes_tiny").get, _keys)
model.criteria[0].matcher = L(Nearest)()
dataloader.train.mapper.augmentations.append(L(Negative)())
dataloader.evaluator = L(Precise)(dataset_name="${..test.dataset.names}")
train.hooks = [L(Countdown)()]
