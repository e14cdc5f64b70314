# One image for all services; which one runs is the command in docker-compose.yml. Never built where it was written: see docs/monitoring.md.
FROM python:3.11-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /app/.venv && /app/.venv/bin/pip install --no-cache-dir uv==0.13.9
ENV VIRTUAL_ENV=/app/.venv PATH=/app/.venv/bin:$PATH UV_NO_CACHE=1
WORKDIR /app
COPY requirements.lock torch.txt ./
RUN uv pip install --require-hashes --no-deps -r requirements.lock \
 && (uv pip install --no-config --torch-backend cpu -r torch.txt || uv pip install --no-config -r torch.txt) \
 && uv pip check
COPY pyproject.toml README.md LICENSE ./
COPY rust rust
COPY crypto_rt crypto_rt
# There is no cargo in this image: puccinialin fetches one, as maturin itself would. The editable install keeps settings.ini and ops/ beside the package.
ENV CARGO_HOME=/tmp/rust/cargo RUSTUP_HOME=/tmp/rust/rustup
RUN uv run --isolated --no-project --with puccinialin python -m puccinialin --location /tmp/rust \
 && PATH=$CARGO_HOME/bin:$PATH uv pip install --no-deps --no-build-isolation -e . \
 && rm -rf rust/target /tmp/rust

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home crypto-rt \
 && mkdir -p /app/data \
 && chown crypto-rt /app /app/data
ENV VIRTUAL_ENV=/app/.venv PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    GX_ANALYTICS_ENABLED=false MLFLOW_DISABLE_TELEMETRY=true GRADIO_ANALYTICS_ENABLED=False GIT_PYTHON_REFRESH=quiet
WORKDIR /app
COPY --from=build /app /app
COPY apps apps
COPY pipelines pipelines
COPY data_contracts data_contracts
COPY ops ops
COPY settings.ini docker-compose.yml ./
USER crypto-rt
VOLUME /app/data
EXPOSE 8000
CMD ["crypto-rt", "--help"]
