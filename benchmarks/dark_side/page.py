def make(results, docs): pass
