# make results-seeds
lth run lenet seed=1 --trials 3 --levels 8 --scale 0.3 --branches '' --out runs/results/seeds/seed1
lth run lenet seed=2 --trials 3 --levels 8 --scale 0.3 --branches '' --out runs/results/seeds/seed2
lth run lenet seed=3 --trials 3 --levels 8 --scale 0.3 --branches '' --out runs/results/seeds/seed3
lth run lenet seed=4 --trials 3 --levels 8 --scale 0.3 --branches '' --out runs/results/seeds/seed4
