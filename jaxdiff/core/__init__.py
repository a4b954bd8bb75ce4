"""The mathematics of diffusion, for one image and one key.

In the order of reading: `process` says how noise is added, `predictions` and `denoise` what a network makes of it,
`grids` and `samplers` how images come about, `guidance` how they are steered, `weightings`, `times` and `losses` what
is trained, `flow_maps` and `few_steps` what does with one step or two, `exact` where all of it is known in closed form;
`sampling` maps it over a batch.
"""
