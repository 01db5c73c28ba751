"""In the style of a packaged trainer: hyphens, required files for all, its own `train`, a main guard."""

import argparse

import hypertune


def get_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--train-files", nargs="+", required=True)
    parser.add_argument("--job-dir")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--hidden-units", default="1")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--verbosity", choices=["DEBUG", "INFO"], default="INFO")
    return parser.parse_args()


def train(args, model, device):
    for epoch in range(2):
        report = hypertune.HyperTune().report_hyperparameter_tuning_metric
        report(hyperparameter_metric_tag="test_loss", metric_value=args.learning_rate, global_step=epoch + 1)
        report("width", sum(map(int, args.hidden_units.split())) * args.batch_size, epoch + 1)


def main():
    args = get_args()
    print("files", args.train_files, "job", args.job_dir)
    train(args, None, "cpu")


if __name__ == "__main__":
    main()
