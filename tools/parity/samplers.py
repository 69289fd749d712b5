"""limner's sampler and schedule names in diffusers' words; plain data, so that reading it imports nothing."""

# Name: diffusers class, the settings that make the variant, and which sets of schedules the class takes.
SAMPLERS = {
    "ddim": ("DDIMScheduler", {}, "spacing"),
    "ddpm": ("DDPMScheduler", {}, "spacing"),
    "deis": ("DEISMultistepScheduler", {}, "spacing curves"),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}, "spacing curves lu"),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "spacing curves lu"),
    "dpmpp_2s": ("DPMSolverSinglestepScheduler", {}, "curves"),
    "euler": ("EulerDiscreteScheduler", {}, "spacing curves"),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}, "spacing"),
    "heun": ("HeunDiscreteScheduler", {}, "spacing curves"),
    "kdpm2": ("KDPM2DiscreteScheduler", {}, "spacing curves"),
    "kdpm2_a": ("KDPM2AncestralDiscreteScheduler", {}, "spacing curves"),
    "lcm": ("LCMScheduler", {}, ""),
    "lms": ("LMSDiscreteScheduler", {}, "spacing curves"),
    "pndm": ("PNDMScheduler", {}, "spacing"),
    "tcd": ("TCDScheduler", {}, ""),
    "unipc": ("UniPCMultistepScheduler", {}, "spacing curves"),
}
# Name: the set it belongs to, and the settings.
SCHEDULES = {
    "default": ("", {}),
    "karras": ("curves", {"use_karras_sigmas": True}),
    "exponential": ("curves", {"use_exponential_sigmas": True}),
    "beta": ("curves", {"use_beta_sigmas": True}),
    "lu": ("lu", {"use_lu_lambdas": True}),
    "leading": ("spacing", {"timestep_spacing": "leading"}),
    "trailing": ("spacing", {"timestep_spacing": "trailing"}),
    "linspace": ("spacing", {"timestep_spacing": "linspace"}),
}
TAKES_ETA = {"DDIMScheduler", "TCDScheduler"}


def takes_schedule(sampler, schedule):
    """Whether the sampler's diffusers class knows this spacing of sigmas."""
    needed = SCHEDULES[schedule][0]
    return not needed or needed in SAMPLERS[sampler][2].split()
