# make results-lenet-continued
lth run lenet-continued --trials 3 --out runs/results/lenet-continued
