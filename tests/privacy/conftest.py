from fedagent.privacy import sigma_of

sigma_of(1.0, 1e-5)  # imports dp-accounting as fedagent does, before a test does it in its own way
