# The program without a GPU.
#   docker build --build-arg PIP_EXTRA_INDEX_URL=PYTORCH_CPU_INDEX -t failfast .       # the index spares CUDA's gigabytes
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" failfast --num_questions 5 --max_new_tokens 64
FROM python:3.12-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim
ARG PIP_EXTRA_INDEX_URL
COPY requirements-lock.txt /
RUN --mount=from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir -c /requirements-lock.txt "$(ls /wheels/*.whl)[plot,grade]"
# Whoever runs it: caches of models and fonts go where everybody may write.
ENV HOME=/tmp HF_HOME=/tmp/huggingface LOGNAME=failfast
WORKDIR /work
ENTRYPOINT ["failfast"]
