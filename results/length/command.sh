# make results-length
lth run conv2 prune.densities=[0.6416,0.412,0.265] --trials 1 --levels 3 --branches '' --out runs/results/length/conv2-20000
lth run lenet recipe.iterations=10000 --trials 3 --levels 8 --branches '' --out runs/results/length/lenet-10000
