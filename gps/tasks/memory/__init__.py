"""The memory tasks of POPGym that guided policy optimisation was shown on: six families, each at three difficulties.

Each is an `Environment` whose rules are those of the Python package popgym 1.0.7 (Morad et al., ICLR 2023). The learner
sees upstream's observation and must remember; obs["privileged_state"] is what has to be remembered, upstream's
`get_state`, in the form of network input. The previous action is in neither.
"""
