// Writing what fastrnn.save() of Python writes.
#include <cstring>
#include <map>
#include <set>

#include "api/handles.h"
#include "file/replacing_file.h"
#include "file/text.h"

namespace fastrnn {
namespace {

struct Contents {
  std::map<std::string, std::string> metadata = {{"format", "fastrnn"}, {"format_version", "1"}};
  std::vector<TensorToWrite> tensors;
  std::string head;  // of the file, before the tensors
};

std::string truth(bool value) { return value ? "true" : "false"; }

void add(Contents& to, const std::string& prefix, const fastrnn_layer& layer) {
  const Config& c = layer.config;
  const std::pair<const char*, std::string> fields[] = {{"cell", kCellNames[int(c.cell)]},
                                                        {"input_size", std::to_string(c.input)},
                                                        {"hidden_size", std::to_string(c.hidden)},
                                                        {"num_layers", std::to_string(c.layers)},
                                                        {"bias", truth(c.bias)},
                                                        {"batch_first", "false"},
                                                        {"dropout", "0.0"},
                                                        {"bidirectional", truth(c.bidirectional)},
                                                        {"proj_size", std::to_string(c.projection)}};
  for (const auto& [name, value] : fields) to.metadata[prefix + name] = value;
  for (size_t i = 0; i < layer.parameters.size(); ++i) {
    const Parameter& p = layer.parameters[i];
    if (!p.set) throw Failure{FASTRNN_NOT_READY, "layer: " + prefix + p.name + " was never set"};
    const fastrnn_tensor view = view_of(layer, i);
    to.tensors.push_back({prefix + p.name, view.dtype, {p.shape, p.shape + p.rank}, view.data, view.bytes});
  }
}

void add(Contents& to, const std::string& prefix, const fastrnn_linear& linear) {
  if (!linear.ready) throw Failure{FASTRNN_NOT_READY, "linear: " + prefix + "weight was never set"};
  to.metadata[prefix + "cell"] = "linear";
  to.metadata[prefix + "in_features"] = std::to_string(linear.in_features);
  to.metadata[prefix + "out_features"] = std::to_string(linear.out_features);
  to.metadata[prefix + "bias"] = truth(linear.bias);
  std::visit(
      [&](const auto& typed) {
        const auto put = [&](const char* name, std::vector<int64_t> shape, const auto& values) {
          to.tensors.push_back({prefix + name, kDtypes[linear.dtype()], std::move(shape), values.data(),
                                values.size() * sizeof(values[0])});
        };
        put("weight", {linear.out_features, linear.in_features}, typed.weight);
        if (linear.bias) put("bias", {linear.out_features}, typed.bias);
      },
      linear.typed);
}

// As JSON is.
void check_utf8(const std::string& text, const char* name) {
  const size_t good = utf8_bytes(text);
  if (good == text.size()) return;
  refuse(std::string(name) + ": expected UTF-8, got the byte " +
         std::to_string(static_cast<unsigned char>(text[good])) + " after '" + shown(text.substr(0, good), 64) + "'");
}

// What the caller adds: fields beside the module's own, or Python would look for another module.
void add(Contents& to, const std::string& prefix, const fastrnn_entry* entries, size_t count) {
  if (count) need(entries, "metadata");
  for (size_t i = 0; i < count; ++i) {
    need(entries[i].key, "metadata"), need(entries[i].value, "metadata");
    const std::string key = entries[i].key, value = entries[i].value;
    check_utf8(key, "metadata"), check_utf8(value, "metadata");
    if (key.empty() || key.find('.') != std::string::npos) {
      refuse("metadata: expected a key without '.', got '" + shown(key, 64) + "'");
    }
    if (!to.metadata.emplace(prefix + key, value).second) {
      refuse("metadata: '" + shown(key, 64) + "' is a key of fastrnn's own, or there a second time");
    }
  }
}

// What loading relies on: the '.' keeps a module's names apart from those of another. A module without a name is alone
// in its file, as in Python.
void check_prefix(const std::string& prefix, size_t modules) {
  check_utf8(prefix, "prefix");
  if (prefix.empty() && modules > 1) refuse("prefix: expected names for several modules, got ''");
  if (!prefix.empty() && (prefix.back() != '.' || prefix == ".")) {
    refuse("prefix: expected '' or a name and '.', got '" + shown(prefix, 64) + "'");
  }
}

Contents contents_of(const fastrnn_module* modules, size_t count) {
  need(modules, "modules");
  if (!count) refuse("modules: expected at least one, got none");
  Contents contents;
  std::set<std::string> prefixes;
  for (size_t i = 0; i < count; ++i) {
    const fastrnn_module& m = modules[i];
    need(m.prefix, "prefix");
    if (!m.layer == !m.linear) refuse("modules: expected a layer or a linear, one of the two");
    check_prefix(m.prefix, count);
    if (!prefixes.insert(m.prefix).second) refuse("prefix: '" + shown(m.prefix, 64) + "' a second time");
    m.layer ? add(contents, m.prefix, *m.layer) : add(contents, m.prefix, *m.linear);
    add(contents, m.prefix, m.metadata, m.entries);
  }
  contents.head = safetensors_head(contents.metadata, contents.tensors);
  return contents;
}

}  // namespace
}  // namespace fastrnn

using namespace fastrnn;

fastrnn_status fastrnn_save(const char* path, const fastrnn_module* modules, size_t count,
                            fastrnn_error* error) noexcept {
  return guarded(error, [&] {
    need(path, "path");
    const Contents contents = contents_of(modules, count);
    ReplacingFile file(path);
    file.write(contents.head.data(), contents.head.size());
    for (const TensorToWrite& t : contents.tensors) file.write(t.data, t.bytes);
    file.commit();
  });
}

fastrnn_status fastrnn_serialize(const fastrnn_module* modules, size_t count, void* out, size_t capacity, size_t* bytes,
                                 fastrnn_error* error) noexcept {
  return guarded(error, [&] {
    need(bytes, "bytes");
    const Contents contents = contents_of(modules, count);
    size_t size = contents.head.size();
    for (const TensorToWrite& t : contents.tensors) size += t.bytes;
    if (out && capacity < size) {
      refuse("capacity: expected at least " + std::to_string(size) + " bytes, got " + std::to_string(capacity));
    }
    *bytes = size;
    if (!out) return;
    char* to = static_cast<char*>(out);
    const auto put = [&](const void* data, size_t n) { to = static_cast<char*>(std::memcpy(to, data, n)) + n; };
    put(contents.head.data(), contents.head.size());
    for (const TensorToWrite& t : contents.tensors) put(t.data, t.bytes);
  });
}
