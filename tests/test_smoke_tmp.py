def test_a(rig):
    r = rig(); assert r.code == 0, r
    print(r.run); print(r.events); print(r.lines)
def test_b(rig):
    r = rig('data.type','mnli@glue'); assert r.code == 0
