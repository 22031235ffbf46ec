"""What every meta-model is: condition -> velocity in a latent -> codec -> target.

Nothing here knows a target: heads, whole networks or anything else that is a `targets.TargetSpace`.
"""
