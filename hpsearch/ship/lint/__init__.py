"""What is wrong with Kubernetes manifests, said offline: schemas, rules of operators, pod security, references."""
