import gc, torch
def test_m(tiny_pipe):
    for n in (4, 4, 8, 40, 4, 40):
        s = tiny_pipe.stream("a red ball", num_frames=8*n, generator=torch.Generator().manual_seed(1), output_type="np")
        r=[]
        for c,_ in enumerate(s,1):
            gc.collect()
            ts=[x for x in gc.get_objects() if type(x) is torch.Tensor]
            r.append((len(ts), sum(x.numel() for x in ts)))
        print(n, r[:6], r[-3:])
        ts=sorted([(x.numel(), tuple(x.shape)) for x in gc.get_objects() if type(x) is torch.Tensor])[-12:]
        print(ts)
