"""What F. Bigi, M. F. Langer, M. Ceriotti publish in "The dark side of the forces", arXiv 2412.11569."""

#: λ
ASYMMETRY = {"PET-NC": 0.004, "ORB": 0.015, "EquiformerV2": 0.017, "SOAP-BPNN-NC": 0.032}
#: K/ps at constant energy: 7,000 billion K/s, and ten times that
HEATING = {"PET-NC": 7.0, "ORB": 70.0}
#: K of hydrogen and of oxygen, at 300 K with stochastic velocity rescaling
TEMPERATURES = {"PET-NC": (296.0, 310.0), "ORB": (336.0, 230.0)}
#: By which Langevin dynamics of a time constant, fs, slows diffusion
SLOWDOWN = {10: 5.0, 100: 1.5}
