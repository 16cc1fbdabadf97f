// What a network would do with some work, and the machine's limit for it.
#include <iterator>

#include "python/arrays.h"
#include "python/bind.h"
#include "python/checks.h"

namespace fastrnn {
namespace {

// The plan of one layer in words and numbers.
py::dict explain_layer(const Plan& p, const std::string& weights) {
  static constexpr const char* why[] = {
      "one thread: more would cost more than they save",
      "each thread has its own rows and never waits",
      "too few rows: one thread multiplies the inputs that another will need",
      "too few rows, or weights that exceed a core's caches: each thread has its own units, and they meet at every "
      "step",
      "too few rows: each thread has layers of its own, some steps behind the one below",
  };
  static_assert(std::size(why) == kSplits, "a reason for each split");
  py::dict d;
  d["threads"] = p.threads, d["split"] = kSplitNames[int(p.split)];
  d["why"] = p.teams == 2 ? "each direction has its own threads" : why[int(p.split)];
  d["threads_from"] = p.threads == 1 ? "caller" : p.by_crew ? "helpers" : "region";
  d["concurrent_directions"] = p.teams;
  d["weights"] = weights;
  d["input_hoisted"] = p.hoist, d["hoisted_steps"] = p.hoist ? p.chunk : 0;
  d["step_ns"] = p.planned_ns;
  for (int i = 0; i < kSplits; ++i) d[(std::string("step_ns_") + kSplitNames[i]).c_str()] = p.step_ns[i];
  return d;
}

}  // namespace

py::dict explain(const AnyNetwork& any, int64_t steps, int batch, bool training, int threads) {
  const Use use = training ? Use::training : Use::inference;
  return visit_made(any.network, "network", [&](const auto& net) {
    using T = element_of<decltype(net)>;
    const Config& c = net->config();
    py::list layers;
    double flops = 0, step_bytes = 0, planned = 0, floor = 0;
    const double passes = training ? 3 : 1;  // forward, gradient of the input, gradient of the weights
    const std::vector<Plan> plans = net->plans({steps, batch, steps * batch, threads_of(threads), use});
    for (int layer = 0; layer < c.layers; ++layer) {
      const Plan& p = plans[size_t(layer)];
      const LayerShape shape = net->shape(layer, use);
      const int gates = shape.gates, weight = weight_bytes(shape, batch);
      layers.append(explain_layer(p, weight == 2 ? "bfloat16" : dtype_name<T>()));
      flops += 2 * multiply_adds(c, gates, layer) * double(batch) * double(steps) * passes;
      step_bytes += double(gates) * c.hidden * c.directions() * c.output() * weight;
      planned += p.planned_ns * double(steps) * passes, floor += p.floor_ns * double(steps) * passes;
    }
    py::dict d;
    d["kernel"] = std::string(net->backend().name) + " " + kCellNames[int(c.cell)] + " " + dtype_name<T>();
    d["isa"] = net->backend().name, d["layers"] = layers, d["flops"] = flops;
    d["recurrent_weight_bytes"] = step_bytes, d["packed_bytes"] = net->packed_bytes();
    d["expected_us"] = planned / 1e3, d["limit_us"] = floor / 1e3;
    d["expected_share_of_limit"] = planned > 0 ? floor / planned : 0.0;
    return d;
  });
}

}  // namespace fastrnn
