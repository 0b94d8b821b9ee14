"""Settings of examples, mining and training. In: values. Out: frozen models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from ragray.config.base import LEAST_CPUS, MAX_ACTORS, MAX_SEED, MAX_THREADS, Gpus, Section

FROM_MINED = ("contrastive", "margin_mse")
"""Values of `train.objective` that learn from what `ragray mine` wrote, without a generator."""


class MineConfig(Section):
    """Which passages become hard negatives of a question: its best candidates of dense and lexical search, but for these."""

    negatives: int = Field(4, ge=0, le=100, description="hard negatives per question at most; 0: the positives alone")
    candidates: int = Field(
        50, ge=1, le=1000, description="passages that dense and lexical search each give to choose negatives from"
    )
    share: float = Field(
        0.95,
        gt=0,
        le=1,
        description="a negative's inner product with the question is below this share of the positive's (TopK-PercPos of NV-Retriever, "
        "arXiv:2407.15831)",
    )
    margin: float = Field(
        0,
        ge=0,
        le=2,
        description="a negative's inner product with the question is below the positive's by more than this (TopK-MarginPos)",
    )
    max_similarity: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Jaccard similarity of the 3-grams of words from which on a passage repeats the positive and is no negative",
    )


class TrainConfig(Section):
    """How question encoder and generator are fine-tuned."""

    epochs: float = Field(1.0, gt=0, description="passes over the examples; may be a fraction")
    max_steps: int = Field(0, ge=0, description="optimizer steps at most; 0: epochs decides")
    batch_size: int = Field(4, ge=1, description="examples per worker and micro-batch")
    gradient_accumulation: int = Field(1, ge=1, description="micro-batches per worker and optimizer step")
    generator_lr: float = Field(1e-4, ge=0, description="peak learning rate of the generator; 0: it is not trained")
    encoder_lr: float = Field(
        1e-5, ge=0, description="peak learning rate of the question encoder; 0: it is not trained"
    )
    warmup_ratio: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of the steps over which the learning rate rises linearly to its peak",
    )
    warmup_steps: int = Field(
        0, ge=0, description="steps over which the learning rate rises linearly to its peak; 0: warmup_ratio decides"
    )
    lr_schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear",
        description="how the learning rate goes on from its peak: in a line or half a cosine wave to 0, or not at all",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the loss that is spread evenly over the vocabulary, as transformers' RAG classes do",
    )
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW; biases and norms have none")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients with a larger L2 norm are scaled down to it")
    tune: Literal["full", "last", "lora"] = Field(
        "full", description="trained weights of the generator: all, its last layers, or low-rank adapters"
    )
    last_layers: int = Field(6, ge=1, description="layers that tune=last trains")
    encoder_tune: Literal["full", "last", "lora"] = Field(
        "full", description="trained weights of the question encoder: all, its last layers, or low-rank adapters"
    )
    encoder_last_layers: int = Field(2, ge=1, description="layers that encoder_tune=last trains")
    lora_rank: int = Field(8, ge=1, description="rank of the adapters that tune=lora and encoder_tune=lora train")
    gradient_checkpointing: bool = Field(
        False,
        description="keep less of the forward pass and compute it again in the backward pass: less memory, more time",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="type that the forward pass computes in (autocast; weights stay float32); auto: bfloat16 on a GPU, else float32",
    )
    seed: int = Field(
        0,
        ge=0,
        le=MAX_SEED,
        description="random seed of the order of the examples, of what is drawn for a prompt, of dropout and of the initial adapters",
    )
    gold_share: float = Field(
        0.8,
        ge=0,
        le=1,
        description="share of the prompts that hold a gold passage; the others hold only passages that the retriever found and that "
        "are not gold (RAFT: Zhang et al. 2024)",
    )
    min_k: int = Field(
        1, ge=1, description="passages per prompt at least; each prompt has a random number of them up to retrieve.k"
    )
    shuffle: bool = Field(
        True, description="put the passages of a prompt in random order; else in the order of retrieval"
    )
    cite: bool = Field(True, description="teach the generator to cite the gold passage as [n] behind its answer")
    unanswerable: str = Field(
        "The passages do not say.",
        description="answer to be given where a prompt holds no gold passage; empty: the accepted answer, from memory",
    )
    distractors: int = Field(
        2,
        ge=0,
        le=100,
        description="wrong passages per example with objective=reader: drawn anew in every epoch from those that were found",
    )
    logging_steps: int = Field(5, ge=1, description="steps per line of metrics")
    trackers: tuple[Literal["mlflow", "wandb"], ...] = Field(
        (),
        description="where metrics go beside metrics.jsonl and, where it is installed, TensorBoard: mlflow, wandb, as a list or "
        "separated by commas",
    )
    checkpoint_steps: int = Field(50, ge=1, description="steps per checkpoint; a crash loses at most so many steps")
    keep_checkpoints: int = Field(
        2,
        ge=1,
        description="checkpoints that are kept while a run trains: so many of the latest, the weights of so many of the best",
    )
    dev_examples: str = Field(
        "",
        description="file of examples, read as those of training are, that validations measure; the model is then that of the best "
        "validation. Empty: none; the objectives contrastive and margin_mse take the questions of dev_share where validate_steps is set",
    )
    num_dev_examples: int = Field(
        200, ge=0, description="examples that a validation measures: so many of dev_examples, drawn by seed; 0: all"
    )
    validate_steps: int = Field(
        0,
        ge=0,
        description="steps per validation, and one after the last step; 0: checkpoint_steps, where there are dev_examples",
    )
    best_metric: Literal["auto", "exact_match", "f1", "recall", "loss"] = Field(
        "auto",
        description="what makes a validation the best: exact_match or f1 (by language, as evaluate.metric=auto), recall of gold passages "
        "among retrieve.k, or the lowest loss; auto: exact_match, and recall where a retriever alone learns",
    )
    patience: int = Field(
        0,
        ge=0,
        description="validations without gain after which training ends; failed ones do not count; 0: it never ends early",
    )
    max_failures: int = Field(
        3, ge=0, description="worker deaths after which training goes on from the last checkpoint; one more ends it"
    )
    num_workers: int = Field(1, ge=1, le=MAX_ACTORS, description="data-parallel training workers")
    cpus_per_worker: float = Field(1, ge=LEAST_CPUS, le=1024, description="CPUs per training worker")
    gpus_per_worker: Gpus = Field(0, description="GPUs per training worker; 0: none is reserved")
    threads_per_worker: int = Field(
        0,
        ge=0,
        le=MAX_THREADS,
        description="torch threads per training worker; 0: the cores of the machine divided by the number of workers",
    )
    objective: Literal["rag", "reader", "perplexity", "contrastive", "margin_mse"] = Field(
        "rag",
        description="what is minimised. rag: the loss of the answers, as generate.marginalize says, of generator and question encoder. "
        "reader: the generator reads each passage alone, answers from a gold one and says nothing to a wrong one, so that its "
        "probabilities tell passages apart. "
        "perplexity: the question encoder alone learns which passages help the generator most (Atlas, arXiv:2208.03299). contrastive: "
        "it learns to find the positive among negatives of `ragray mine` and the other questions' passages. margin_mse: it learns the "
        "margins of the reranker that `ragray mine` was given (arXiv:2010.02666)",
    )
    score_scale: float = Field(
        20,
        gt=0,
        description="inner products of questions and passages are multiplied by it in the objectives contrastive and margin_mse",
    )
    reader_temperature: float = Field(
        0.1,
        gt=0,
        description="temperature of the target of objective=perplexity: softmax(log-likelihood of an answer's token / it) over passages",
    )
    cache_batch_size: int = Field(
        0,
        ge=0,
        description="texts that are encoded at a time in the objectives contrastive and margin_mse, and once more for their "
        "gradients: memory holds the activations of so many (as GradCache, arXiv:2101.06983); 0: all at once",
    )
    passage_encoder: bool = Field(
        False,
        description="train the passage encoder with the question encoder, as one model where the index's encoder is one; the run then has "
        "an index of its own, RUN/index. In the objectives contrastive and margin_mse: a second model beside the question encoder; "
        "the index must then be built again with it",
    )
    refresh_steps: int = Field(
        0,
        ge=0,
        description="steps after which the passages are embedded again with the trained passage encoder, beside the training, which then "
        "searches the new index; 0: the index stays as it was",
    )
    refresh_candidates: int = Field(
        0,
        ge=0,
        description="passages that are looked up per question where the passage encoder trains, and scored by it as it is now, of which "
        "the best retrieve.k are kept; 0: twice retrieve.k",
    )
    refresh_cpus: float = Field(
        1,
        ge=LEAST_CPUS,
        le=1024,
        description="CPUs that embedding the passages again may take, at low priority: a worker for each",
    )
    refresh_gpus: Gpus = Field(
        0, description="GPUs that embedding the passages again may take: a worker for each; 0: none"
    )
    refresh_wait: bool = Field(
        False,
        description="let training wait for every new index: slower, but the same run comes out whatever the speed of the machine",
    )
    dev_share: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the mined questions that is held out of the objectives contrastive and margin_mse; the trained encoder is "
        "kept only if it finds more of their gold passages than the one before; 0: none, it is kept",
    )

    @field_validator("trackers", mode="before")
    @classmethod
    def _separated(cls, names: Any) -> Any:
        """Take names that are separated by commas."""
        return [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else names

    @property
    def validation_steps(self) -> int:
        """Steps per validation; 0: there is none."""
        measured = bool(self.dev_examples) or self.objective in FROM_MINED
        return measured * (self.validate_steps or bool(self.dev_examples) * self.checkpoint_steps)


class ExamplesConfig(Section):
    """Which fields of a record hold an example; an empty setting stands for the names that common formats use."""

    id_field: str = Field("", description="field that holds the id; empty: id, _id, qid, question_id or query_id")
    question_field: str = Field("", description="field that holds the question; empty: question, query or (KILT) input")
    question_template: str = Field(
        "",
        description="question made of several fields, for instance: Translate into {language}: {input}; empty: the field alone",
    )
    answers_field: str = Field(
        "",
        description="field that holds the accepted answers: a text, a number, a list, or an object of SQuAD, TriviaQA or KILT; "
        "empty: answers, answer, golden_answers or (KILT) output",
    )
    gold_field: str = Field(
        "",
        description="field that holds the ids of passages or documents with the answer; empty: gold_ids or gold_id",
    )
