# make results-vgg19
lth run vgg19 recipe.eval_every=500 prune.densities=[0.8,0.41,0.107,0.02] 'branch=[{name="reinit",count=1,levels="4"}]' --trials 1 --levels 4 --scale 0.05 --threads 2 --out runs/results/vgg19/vgg19
lth run vgg19-lr0.01 recipe.eval_every=500 prune.densities=[0.8,0.41,0.107,0.02] 'branch=[{name="reinit",count=1,levels="4"}]' --trials 1 --levels 4 --scale 0.05 --threads 2 --out runs/results/vgg19/vgg19-lr0.01
lth run vgg19-warmup recipe.eval_every=500 prune.densities=[0.8,0.41,0.107,0.02] 'branch=[{name="reinit",count=1,levels="4"}]' --trials 1 --levels 4 --scale 0.05 --threads 2 --out runs/results/vgg19/vgg19-warmup
