# make results-conv2
lth run conv2 recipe.iterations=5000 'branch=[{name="reinit",count=1,levels="1-8",iterations=6000}]' --trials 2 --levels 10 --out runs/results/conv2
