# make results-lenet-oneshot
lth run lenet-oneshot --trials 3 --out runs/results/lenet-oneshot
