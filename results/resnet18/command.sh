# make results-resnet18
lth run resnet18 recipe.eval_every=200 --trials 1 --levels 4 --scale 0.2 --branches '' --out runs/results/resnet18/resnet18
lth run resnet18-lr0.01 recipe.eval_every=200 --trials 1 --levels 4 --scale 0.2 --branches '' --out runs/results/resnet18/resnet18-lr0.01
lth run resnet18-warmup recipe.eval_every=200 --trials 1 --levels 4 --scale 0.2 --branches '' --out runs/results/resnet18/resnet18-warmup
