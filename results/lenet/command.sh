# make results-lenet
lth run lenet 'branch=[{name="reinit",count=3,levels="1-18"},{name="random-mask",count=1,levels="1-18"}]' --out runs/results/lenet
