# Two images:
#   docker build --target train -t zoo .            train, evaluate, export (CUDA build of torch)
#   docker build --target serve -t zoo-serve .      serve an exported model: ONNX Runtime, NumPy, Pillow
#   docker run -p 8000:8000 -v ./runs/RUN:/models zoo-serve

FROM python:3.12-slim AS train
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /zoo
COPY . .
RUN python3 -m venv .venv && .venv/bin/pip install -q uv && .venv/bin/uv pip install -q -p .venv --compile-bytecode -e .
ENV PATH="/zoo/.venv/bin:$PATH"
ENTRYPOINT ["zoo"]
CMD ["--help"]

FROM python:3.12-slim AS serve
RUN pip install --no-cache-dir onnxruntime numpy pillow
COPY zoo/serving/serve.py /serve.py
EXPOSE 8000
CMD ["python", "/serve.py", "/models/model.onnx", "--host", "0.0.0.0", "--port", "8000"]
