# make results-inputs
lth run conv2 data.mean=[] data.std=[] recipe.iterations=5000 --trials 2 --levels 0 --branches '' --out runs/results/inputs/conv2-pixels
lth run conv2 data.mean=[0.4914,0.4822,0.4465] data.std=[0.247,0.2435,0.2616] recipe.iterations=5000 --trials 2 --levels 0 --branches '' --out runs/results/inputs/conv2-standardised
lth run conv2-dropout recipe.lr=0.0001 recipe.iterations=1500 --trials 2 --levels 0 --branches '' --out runs/results/inputs/dropout-bytes
lth run conv2-dropout recipe.iterations=1500 --trials 2 --levels 0 --branches '' --out runs/results/inputs/dropout-bytes-3e-4
lth run conv2-dropout recipe.lr=0.0001 recipe.iterations=1500 data.mean=[0.4914,0.4822,0.4465] data.std=[0.247,0.2435,0.2616] --trials 2 --levels 0 --branches '' --out runs/results/inputs/dropout-standardised
lth run lenet data.mean=[0.1307] data.std=[0.3081] --scale 0.4 --levels 0 --branches '' --out runs/results/inputs/lenet-standardised
