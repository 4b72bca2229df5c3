"""Half steps: the server goes half of the way to the mean of the clients."""

from federatedscope_ext.aggregators import LoraRule, ModuleRule
from federatedscope_ext.methods import Method, Option, lora, register_method
from fedlora.pairs import Factors


class HalfStepModule(ModuleRule):
    """``A <- A + share (mean A - A)``, and so for B."""

    needs_means = True  # keep weighted sums of the factors' rows

    def result(self):  # canonical form: scale 1, B stands for s B
        mean, now = self.means.over_all(), self.target.current()
        share = self.target.options.setting("half_step.share", 0.5)
        if now is None or mean.A is None or mean.B is None:
            return mean
        a, b = now.A[: mean.rank].to(mean.A), (now.scale * now.B[:, : mean.rank]).to(mean.B)
        return Factors(a.lerp(mean.A, share), b.lerp(mean.B, share), 1.0)


class HalfStep(LoraRule):
    """The rule of all modules."""

    module_rule = HalfStepModule


register_method(
    Method(
        key="half_step",
        name="Half steps",
        paper="nobody, 2026",
        note="The server goes half of the way.",
        variants=lora(
            "Half steps"
        ),  # trains and sends A and B; see Variant for what is kept or frozen
        rule=HalfStep,
        options=(Option("half_step", "share", 0.5, "How far the server goes.", low=0.0, high=1.0),),
    )
)
