"""What is wrong with Kubernetes manifests, said offline: schemas, operators' rules, security, references."""
