# make results-conv6
lth run conv6 recipe.iterations=6000 'branch=[{name="reinit",count=1,levels="1-8",iterations=9000}]' --trials 1 --levels 10 --out runs/results/conv6
