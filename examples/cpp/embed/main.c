/* The same library from C: a one-unit LSTM, step by step, and what an error looks like. */
#include <fastrnn/fastrnn.h>
#include <math.h>
#include <stdio.h>

int main(void) {
  const float weights[4] = {0.5F, 0.25F, 1.0F, 0.75F}; /* gates i f g o */
  fastrnn_config config;
  fastrnn_error error;
  fastrnn_layer* layer = NULL;
  fastrnn_stream* stream = NULL;
  fastrnn_config_default(&config);
  config.bias = 0;
  int ok = fastrnn_layer_create(&config, &layer, &error) == FASTRNN_OK &&
           fastrnn_layer_set(layer, "weight_ih_l0", weights, 4, &error) == FASTRNN_OK &&
           fastrnn_layer_set(layer, "weight_hh_l0", weights, 4, &error) == FASTRNN_OK &&
           fastrnn_layer_prepare(layer, 1, &error) == FASTRNN_OK &&
           fastrnn_stream_create(layer, 1, 1, &stream, &error) == FASTRNN_OK;
  float h = 0;
  for (int t = 0; ok && t < 4; ++t) {
    const float x = 1;
    ok = fastrnn_stream_step(stream, &x, &h) == FASTRNN_OK;
    printf("h[%d] = %.6f\n", t, (double)h);
  }
  ok = ok && isfinite(h);
  if (!ok) fprintf(stderr, "%s\n", error.message);
  const fastrnn_status status = fastrnn_layer_set(layer, "weight_xx_l0", weights, 4, &error);
  ok = ok && status == FASTRNN_INVALID_ARGUMENT;
  printf("%s: %s\n", fastrnn_status_name(status), error.message);
  fastrnn_stream_free(stream);
  fastrnn_layer_free(layer);
  return ok ? 0 : 1;
}
