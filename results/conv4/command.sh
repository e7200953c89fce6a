# make results-conv4
lth run conv4 recipe.iterations=5000 'branch=[{name="reinit",count=1,levels="1-8",iterations=6000}]' --trials 1 --levels 10 --out runs/results/conv4
