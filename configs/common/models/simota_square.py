"""SimOTA by the rule of YOLOX's main branch: own locations lie in a smaller square, whether or not inside the box."""

from .simota import model

model.criteria[0].matcher.update(center_radius=1.5, inside_box=False, iou_eps=1e-8)
for _loss in ("loss_iou", "loss_obj", "loss_cls"):
    model.criteria[0].losses[_loss].scope = "local"
