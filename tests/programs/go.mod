module gotracer.test/programs

go 1.19
