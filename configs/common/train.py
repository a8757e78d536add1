"""Options of the trainer (la_det/engine)."""

train = dict(
    output_dir="./output",
    init_checkpoint="",  # file, URL, detectron2://..., torchvision://resnet{18,34,50,101}; "" starts from scratch
    allow_pickle=False,  # read checkpoints that hold pickled objects, which can run any code
    max_iter=90000,
    device="auto",  # "cuda" if there is a GPU, else "cpu"
    seed=0,
    channels_last=False,  # memory format of convolutions; faster on CPUs, and on GPUs with AMP
    deterministic=False,  # deterministic kernels, slower
    amp=dict(enabled=False, dtype="float16"),  # or "bfloat16", which also runs on CPUs
    grad_accum_steps=1,  # forward and backward passes per batch
    clip_grad=dict(max_norm=0.0, per_parameter=False),  # L2 norm of all gradients together, or of each; 0: off
    ema=dict(enabled=False, decay=0.9998),
    auto_scale_lr=dict(enabled=False, reference_batch_size=16),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False),
    checkpointer=dict(period=5000, max_to_keep=3),
    eval_period=5000,
    diagnostics_period=1000,  # iterations between looks at the assignment (la_det/engine/diagnostics.py); 0 is off
    log_period=20,
    # model_best.pth gets the weights with the best ("max" or "min") value of a metric, such as bbox/AP. The training
    # ends after `patience` evaluations that are no better (0: never).
    best=dict(metric="", mode="max", patience=0),
    preemption_signal="SIGUSR1",  # ends the training after the step, with a checkpoint, as SIGTERM and SIGINT do
    hooks=[],  # your hooks, as L(MyHook)(...); they run before checkpoints are saved
    writers=[],  # your writers, as L(la_det.engine.writers.WandbWriter)(project="...")
)
