"""Campaign: an experiment being run; out come evaluations and tables.

It trains each method with each seed (learned methods only), evaluates it on each test set, and writes

    OUT/models/METHOD/seed-S-HASH/        the training run and its model folder, see `trained`
    OUT/evaluations/TEST/METHOD/seed-S/   the evaluation's folder, see `record`; under shift/ and shots/ in it
                                          those of each corruption, and of each draw of good parts
    OUT/tables, OUT/results.json          see `results`

What is there already and was made from the same settings, weights and files is not made again, so a campaign
that was stopped goes on. An evaluation with failures is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dapo import __version__
from dapo.config import ModelConfig
from dapo.corruptions import CORRUPTIONS
from dapo.data import Sample, types_of
from dapo.data.catalogue import DATASETS, open_dataset
from dapo.errors import ConfigError, DataError
from dapo.evaluation.contrast import FILTERS, best_filter
from dapo.evaluation.experiment import (
    CONTRAST,
    GENERATED,
    MODEL,
    DataSettings,
    Experiment,
    TestSettings,
    slug,
)
from dapo.evaluation.fingerprint import data_facts, short_hash, stamp
from dapo.evaluation.listener import Listener, Silent
from dapo.evaluation.naming import check_known, words_of
from dapo.evaluation.record import make_folder, read_evaluation, write_evaluation
from dapo.evaluation.results import Results
from dapo.evaluation.run import Evaluation, evaluate
from dapo.evaluation.seeds import over_seeds
from dapo.evaluation.shift import Shift, evaluate_shift
from dapo.evaluation.shots import Shots, check_parts, evaluate_shots, parts_of
from dapo.evaluation.tables import warnings_of
from dapo.evaluation.trained import adapted, run_folder, settings_for, skipped_in
from dapo.inspector import Inspector, device_of
from dapo.learning import Progress, train
from dapo.learning.examples import without
from dapo.learning.methods import Method, build_method_detector, load_method
from dapo.model.artifact import ModelInfo, load

Samples = Sequence[Sample]


@dataclass(frozen=True)
class Run:
    """One trained or untrained detector of a method; seed is None where nothing was trained."""

    seed: int | None
    inspector: Inspector | None  # None: the local-contrast filters
    skipped: dict[str, str] = field(default_factory=dict)  # training images that could not be used

    @property
    def folder(self) -> str:
        return "one" if self.seed is None else f"seed-{self.seed}"


@dataclass(frozen=True)
class Campaign:
    """data: the folder below which the test sets lie; train_data: the train set's, None = the same.

    model: the backbone or model instead of the experiment's. pictures: draw confusions and curves. words:
    where the phrases of the test sets were written, for messages.
    """

    experiment: Experiment
    out: Path
    data: Path | None = None
    train_data: Path | None = None
    model: str | Path | None = None
    device: str | None = None
    batch_size: int = 8
    pictures: bool = False
    words: str = "phrases"
    listener: Listener = field(default_factory=Silent)

    def run(self) -> Results:
        """Train, evaluate, write.

        Raises ConfigError for methods that need a train set, settings that would do nothing, or a folder
        that cannot be written in, and DataError for data that are missing, before anything is computed.
        """
        results = Results(self.experiment)
        methods = self.methods()
        tests = {test.title: (test, self.samples(test)) for test in self.experiment.test}
        for test, samples in tests.values():
            words_of(test, samples, self.words)
            check_known(test, samples)
        good = {title: self.good_parts(test, samples) for title, (test, samples) in tests.items()}
        _ = self.learned_from
        make_folder(self.out)
        for name, method in methods.items():
            found: dict[str, list[Evaluation]] = {title: [] for title in tests}
            for run in self.runs(name, method):
                results.skipped.update(run.skipped)
                for title, (test, samples) in tests.items():
                    found[title].append(self.evaluation(name, run, test, samples))
                    if run.inspector is None or len(found[title]) > 1:
                        continue
                    clean = found[title][0]
                    if self.experiment.shots:
                        shots = self.shots(name, run, test, samples, clean, good[title])
                        results.shots[title, name] = shots
                    if self.experiment.shift:
                        results.shifts[title, name] = self.shift(name, run, test, samples, clean)
            if method is not None:
                own = self.experiment.settings if method.learns else {}
                results.adapted[name] = adapted(method, self.backbone.clip, own)
            results.evaluations.update({(title, name): over_seeds(own) for title, own in found.items()})
        results.write(self.out)
        return results

    def methods(self) -> dict[str, Method | None]:
        """{name: method}, None for what is none."""
        found = {
            name: None if name in (MODEL, CONTRAST) else load_method(name) for name in self.experiment.methods
        }
        learned = [name for name, method in found.items() if method is not None and method.learns]
        if learned and self.experiment.train is None:
            raise ConfigError(
                f"{', '.join(learned)} must be trained before the test: expected a train set, got none. Give "
                "train: in the experiment, or --train-dataset (and --train-data for its folder)"
            )
        if idle := [] if learned else self.idle():
            raise ConfigError(
                f"nothing is trained with {', '.join(found)}, so {' and '.join(idle)} would do nothing. "
                "Leave it out, or name a method that learns."
            )
        if set(found) == {CONTRAST} and (self.experiment.shift or self.experiment.shots or self.pictures):
            raise ConfigError(
                f"{CONTRAST} is measured without --shift, --shots and --plots. Leave them out, or add "
                "a method."
            )
        return found

    def idle(self) -> list[str]:
        """What is set for a training."""
        experiment = self.experiment
        wanted = {
            "the train set (--train-dataset)": experiment.train is not None,
            "seeds (--seeds)": "seeds" in experiment.model_fields_set,
            "settings (--set)": bool(experiment.settings),
            "held_out (--held-out)": bool(experiment.held_out),
        }
        return [name for name, given in wanted.items() if given]

    @cached_property
    def backbone(self) -> Any:
        """A detector on the backbone, for its towers."""
        return load(self.place)[0]

    @property
    def place(self) -> str | Path | None:
        """The model folder or id; None = the embedded model."""
        return self.model if self.model is not None else self.experiment.model

    def samples(self, settings: DataSettings, data: Path | None = None) -> tuple[Sample, ...]:
        """Samples of a test set, or the labelled (test) split of a train set."""
        data = data or self.data
        if data is None:
            raise DataError(
                f"expected the folder of the dataset {settings.dataset}; got none. Give --data ROOT."
            )
        options: dict[str, Any] = {"splits": ("test",)}
        if isinstance(settings, TestSettings):
            options = {"splits": settings.splits, "group_key": settings.group_key}
        return open_dataset(
            settings.dataset,
            data / settings.root if settings.root else data,
            products=settings.products,
            variant=settings.variant,
            **options,
        )

    def good_parts(self, test: TestSettings, samples: Samples) -> Samples:
        """Where references are drawn from: the train split of the test set; nothing where none are wanted."""
        most = max(self.experiment.shots, default=0)
        if not most:
            return ()
        try:
            found = self.samples(test.model_copy(update={"splits": ("train",)}))
        except DataError as error:
            if error.kind != "empty":
                raise
            found = ()
        check_parts(parts_of(found, samples), most, test.title)
        return found

    @cached_property
    def training_samples(self) -> Samples:
        """What learned methods train on; empty for generated scenes."""
        settings = self.experiment.train
        if settings is None or settings.dataset == GENERATED:
            return ()
        return self.samples(settings, self.train_data)

    @cached_property
    def learned_from(self) -> Samples:
        """The training samples without those of held-out types."""
        held_out, settings = self.experiment.held_out, self.experiment.train
        if settings is None or not self.training_samples:
            return self.training_samples
        return without(self.training_samples, held_out, settings.root or settings.dataset)

    @cached_property
    def learned_images(self) -> frozenset[Path]:
        """Their files."""
        return frozenset(sample.image.resolve() for sample in self.learned_from)

    def runs(self, name: str, method: Method | None) -> Iterator[Run]:
        """The detectors of a method, one after the other, trained where it learns."""
        if name == CONTRAST:
            yield Run(None, None)
        elif method is None or not method.learns:
            yield Run(None, self.untrained(method))
        else:
            for seed in self.experiment.seeds:
                folder = self.train(method, seed)
                inspector = Inspector.from_pretrained(folder, device=self.device)
                yield Run(seed, inspector, skipped_in(folder.parent))

    def train(self, method: Method, seed: int) -> Path:
        """The model folder of one seed; a run that is there goes on, or is taken as it is."""
        clip, data = self.backbone.clip, self.train_data or self.data or Path()
        settings = settings_for(self.experiment, method, seed, clip, data)
        folder = self.out / "models" / run_folder(method, settings, clip, self.training_samples)
        told: list[bool] = []

        def watch(progress: Progress) -> None:
            if not told:
                self.listener.stage(f"training {method.name}, seed {seed}", progress.steps)
                told.append(True)
            self.listener.advance(f"loss {progress.losses.get('loss', float('nan')):.3f}")

        source = self.experiment.train
        model = train(
            folder,
            data=self.training_samples or None,
            data_name=None if source is None else source.root or source.dataset,
            model=self.place,
            settings=settings,
            resume=True,
            device=device_of(self.device),
            on_step=watch,
        )
        if not told:
            self.listener.note(f"{method.name}, seed {seed}: taken from {model}")
        return model

    def untrained(self, method: Method | None) -> Inspector:
        """The model as it is, or a training-free method on its backbone; a calibration, which is for one list
        of words, changes nothing.
        """
        inspector = Inspector.from_pretrained(self.place, device=self.device)
        if method is None:
            return inspector.changed()
        detector = build_method_detector(method, inspector.detector.clip)
        detector.precision = inspector.detector.precision
        own = inspector.info.config
        config = ModelConfig(
            name=f"{method.name} on {own.name}",
            version=own.version,
            backbone=own.backbone,
            detector=detector.settings,
        )
        info = ModelInfo(config, inspector.info.folder)
        return Inspector(detector.requires_grad_(False).to(inspector.device), info)

    def evaluation(self, name: str, run: Run, test: TestSettings, samples: Samples) -> Evaluation:
        """Of one run on one test set."""
        facts = self.facts(name, run, test, samples)
        known = self.known(test)
        seed = "" if run.seed is None else f", seed {run.seed}"
        stage = f"{name} on {test.title}{seed}"

        def make() -> Evaluation:
            if run.inspector is None:
                self.listener.stage(stage, len(FILTERS) * len(samples))
                return best_filter(samples, facts, on_image=lambda _: self.listener.advance())
            self.listener.stage(stage, len(samples))
            options = self.options(test, samples)
            return evaluate(run.inspector, samples, known=known, facts=facts, **options)

        whole = [*self.inputs(run, test, samples), known, facts]
        found = self.remembered(self.folder(name, run, test), stage, whole, make, self.pictures)
        for said in warnings_of(found):
            self.listener.note(f"warning: {stage}: {said}")
        return found

    def shift(self, name: str, run: Run, test: TestSettings, samples: Samples, clean: Evaluation) -> Shift:
        """The test set under corruptions; for methods with several seeds the first."""
        assert run.inspector is not None
        wanted = self.experiment.shift
        found = evaluate_shift(
            run.inspector,
            samples,
            kinds=tuple(CORRUPTIONS) if wanted == "all" else wanted,
            clean=clean,
            through=self.through("shift", name, run, test, samples),
            facts=self.facts(name, run, test, samples),
            **self.options(test, samples) | {"draws": 0},
        )
        return replace(found, note=note_of(run))

    def shots(
        self, name: str, run: Run, test: TestSettings, samples: Samples, clean: Evaluation, good: Samples
    ) -> Shots:
        """The test set beside good parts; for methods with several seeds the first."""
        assert run.inspector is not None
        found = evaluate_shots(
            run.inspector,
            samples,
            good,
            shots=self.experiment.shots,
            shot_draws=self.experiment.shot_draws,
            clean=clean,
            through=self.through("shots", name, run, test, samples, data_facts(good, stamp)),
            facts=self.facts(name, run, test, samples),
            **self.options(test, samples) | {"draws": 0},
        )
        return replace(found, note=note_of(run))

    def through(
        self, part: str, name: str, run: Run, test: TestSettings, samples: Samples, *more: Any
    ) -> Callable[[str, Callable[[], Evaluation]], Evaluation]:
        """What keeps the evaluations of one run under conditions, each below the folder `part`. more: what
        they come of besides the test set.
        """
        folder = self.folder(name, run, test) / part
        inputs = [*self.inputs(run, test, samples), self.facts(name, run, test, samples), *more]

        def remembered(condition: str, make: Callable[[], Evaluation]) -> Evaluation:
            stage = f"{name} on {test.title}, {condition}"

            def told() -> Evaluation:
                self.listener.stage(stage, len(samples))
                return make()

            return self.remembered(folder / slug(condition), stage, [*inputs, condition], told, False)

        return remembered

    def remembered(
        self, folder: Path, stage: str, whole: Any, make: Callable[[], Evaluation], pictures: bool
    ) -> Evaluation:
        """What the folder holds if it came of the same inputs `whole`; else made, and written there."""
        key = short_hash(whole, 64)
        before = None if pictures else read_evaluation(folder, key)  # the record alone cannot be drawn
        if before is not None and not before.failures:
            self.listener.note(f"{stage}: taken from {folder}")
            return before
        found = make()
        write_evaluation(found, folder, pictures=pictures, key=key)
        return found

    def folder(self, name: str, run: Run, test: TestSettings) -> Path:
        return self.out / "evaluations" / slug(test.title) / slug(name) / run.folder

    def facts(self, name: str, run: Run, test: TestSettings, samples: Samples) -> dict[str, Any]:
        """What the protocol states besides. instead: the model, where it is not the experiment's."""
        facts = {
            "dataset": test.title,
            "licence": DATASETS[test.dataset].licence,
            "method": name,
            "training_seed": run.seed,
        }
        if self.model is not None and run.inspector is not None:
            facts["instead"] = Path(self.model).name
        if run.seed is not None:
            seen = sum(sample.image.resolve() in self.learned_images for sample in samples)
            facts |= {"trained_on_test_images": seen} if seen else {}
        return facts

    def inputs(self, run: Run, test: TestSettings, samples: Samples) -> list[Any]:
        """Evaluations of equal inputs come out equal."""
        model = None
        if run.inspector is not None:
            settings = run.inspector.detector.settings.model_dump(mode="json")
            model = [run.inspector.info.sha256, settings, repr((run.inspector.tiling, run.inspector.roi))]
        files = data_facts(samples, stamp)
        return [__version__, test.model_dump(mode="json"), files, model, self.experiment.draws]

    def options(self, test: TestSettings, samples: Samples) -> dict[str, Any]:
        """Of `evaluate`."""
        return {
            "phrases": words_of(test, samples, self.words),
            "names": test.names,
            "draws": self.experiment.draws,
            "batch_size": self.batch_size,
            "on_image": lambda _: self.listener.advance(),
        }

    def known(self, test: TestSettings) -> tuple[str, ...] | None:
        """Types that training had; None where nobody can tell."""
        if test.known is not None:
            return test.known
        return types_of(self.learned_from) or None


def note_of(run: Run) -> str:
    """For tables of one training among several."""
    return "" if run.seed is None else f"Of the training with seed {run.seed} alone."
