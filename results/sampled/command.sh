# make results-sampled
lth run conv2 recipe.iterations=5000 prune.densities=[0.265] 'branch=[{name="reinit",count=2},{name="sampled",count=2}]' --trials 1 --levels 1 --threads 2 --out runs/results/sampled/conv2-5000
lth run conv2 prune.densities=[0.265] 'branch=[{name="reinit",count=2,iterations=5000},{name="sampled",count=2,iterations=5000}]' --trials 1 --levels 1 --threads 2 --out runs/results/sampled/conv2-20000
