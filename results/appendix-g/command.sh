# make results-appendix-g
lth run lenet name=lenet-rate0.6 prune.rate=0.6 --trials 3 --scale 0.4 --levels 11 --branches '' --out runs/results/appendix-g/scale0.4-trials3-levels14/lenet-rate0.6
lth run lenet name=lenet-rate0.8 prune.rate=0.8 --trials 3 --scale 0.4 --levels 6 --branches '' --out runs/results/appendix-g/scale0.4-trials3-levels14/lenet-rate0.8
lth figure 26 --trials 3 --scale 0.4 --levels 14 --out runs/results/appendix-g
lth figure 27 --trials 3 --scale 0.4 --levels 14 --out runs/results/appendix-g
lth figure 28 --trials 3 --scale 0.4 --levels 14 --out runs/results/appendix-g
lth figure 29 --trials 3 --scale 0.4 --levels 14 --out runs/results/appendix-g
lth figure 30 --trials 3 --scale 0.4 --levels 14 --out runs/results/appendix-g
lth figure 31 --trials 3 --scale 0.4 --levels 14 --out runs/results/appendix-g
