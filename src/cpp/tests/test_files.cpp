// Files of weights: round trips, what is wrong with a file in words, and a hundred thousand damaged ones.
#include <algorithm>
#include <cstring>
#include <utility>

#include "tests/api_check.h"
#include "tests/stored.h"

namespace fastrnn::tests {
namespace {

Bytes read(const std::string& path) {
  Bytes bytes(1 << 20);
  std::FILE* const file = std::fopen(path.c_str(), "rb");
  bytes.resize(std::fread(bytes.data(), 1, bytes.size(), file));
  std::fclose(file);
  return bytes;
}

template <class T>
Bytes saved(const char* file) {
  const std::string path = scratch_file(file);
  const Layer<T> lstm = ready_layer<T>(config_of(Cell::lstm, 3, 4, 2, 2, true));
  const Layer<T> gru = ready_layer<T>(config_of(Cell::gru, 2, 3, 1, 0, false, false), 50);
  Linear<T> head = required(Linear<T>::make(3, 2));
  const auto w = draw<T>(6, 3);
  required(head.set(w.data(), w.data()));
  required(save(path.c_str(), {{"lstm.", lstm}, {"gru.", gru}, {"head.", head}}));
  const Bytes bytes = read(path);

  const Weights weights = required(Weights::open(path.c_str()));
  CHECK(!std::strcmp(weights.metadata("format"), "fastrnn") && !weights.metadata("nothing"), "metadata");
  CHECK(weights.count() == lstm.count() + gru.count() + 2, "%zu tensors", weights.count());
  for (const Layer<T>* original : {&lstm, &gru}) {
    const char* const prefix = original == &lstm ? "lstm." : "gru.";
    const Layer<T> loaded = required(Layer<T>::load(weights, prefix));
    const Config a = original->config(), b = loaded.config();
    CHECK(a.cell == b.cell && a.input_size == b.input_size && a.hidden_size == b.hidden_size && a.bias == b.bias &&
              a.num_layers == b.num_layers && a.bidirectional == b.bidirectional && a.proj_size == b.proj_size,
          "the architecture of %s", prefix);
    for (size_t i = 0; i < original->count(); ++i) {
      const Tensor x = required(original->at(i)), y = required(loaded.at(i));
      CHECK(!std::strcmp(x.name, y.name) && x.bytes == y.bytes && !std::memcmp(x.data, y.data, x.bytes), "%s", x.name);
    }
  }
  T x[3] = {1, 2, 3}, y[2], z[2];
  required(head.step(x, y)), required(required(Linear<T>::load(weights, "head.")).step(x, z));
  CHECK(!std::memcmp(y, z, sizeof y), "the head");
  using Other = std::conditional_t<sizeof(T) == 4, double, float>;
  const auto other = Layer<Other>::load(weights, "gru.");
  CHECK(!other && std::strstr(other.error().message(), "gru.weight_ih_l0: expected dtype F"), "another dtype");
  CHECK(!Layer<T>::load(weights, "head.") && !Linear<T>::load(weights, "gru.") && !Layer<T>::load(weights, "x."),
        "a module of another kind");
  std::remove(path.c_str());
  return bytes;
}

void rejected(const Bytes& file, const char* text) {
  const auto weights = Weights::parse(file.data(), file.size());
  CHECK(!weights, "accepted, expected: %s", text);
  if (weights) return;
  CHECK(weights.error().status() == Status::format, "%s: %s", name(weights.error().status()), text);
  CHECK(std::strstr(weights.error().message(), text), "'%s' has no '%s'", weights.error().message(), text);
}

// A name of a tensor, as it is written in a file.
void names() {
  const auto parsed = [](const std::string& name) {
    const Bytes file = file_of("{" + tensor(name.c_str(), "F32", "1", "0,4") + "}", 4);
    return Weights::parse(file.data(), file.size());
  };
  // The shortest and the longest of each kind, and what lies next to it: too long a form, a surrogate, past U+10FFFF.
  for (const char* good : {"\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF",
                           "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "\x7F"}) {
    required(required(parsed(good)).find(good));
  }
  for (const char* bad : {"\xC0\xAF", "\xC1\xBF", "\xE0\x80\xAF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xED\xBF\xBF",
                          "\xF0\x80\x80\xAF", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\x80",
                          "\xBF", "\xFF", "\xC3", "\xC3x", "\xC3\xC3", "\xE1\x80", "\xF1\x80\x80"}) {
    rejected(file_of("{" + tensor(bad, "F32", "1", "0,4") + "}", 4), "a string that is not UTF-8");
  }
  const char* const escapes[][2] = {{R"(\u00E9)", "\xC3\xA9"},
                                    {R"(\u00e9)", "\xC3\xA9"},
                                    {R"(\uABCD\uabcd)", "\xEA\xAF\x8D\xEA\xAF\x8D"},
                                    {R"(\uD83D\uDE00)", "\xF0\x9F\x98\x80"},
                                    {R"(\udbff\udfff)", "\xF4\x8F\xBF\xBF"},
                                    {R"(\"\\\/\b\f\n\r\t)", "\"\\/\b\f\n\r\t"},
                                    {R"(\u001F\u007f)", "\x1F\x7F"},
                                    {R"(\uFFFF)", "\xEF\xBF\xBF"}};
  for (const auto& [written, meant] : escapes) {
    const Weights weights = required(parsed(written));  // t.name is theirs
    const Tensor t = required(weights.at(0));
    CHECK(!std::strcmp(t.name, meant), "%s is '%s'", written, t.name);
  }
  const char* const wrong[][2] = {{R"(\u00G9)", "four hexadecimal digits"},
                                  {R"(\u00e)", "four hexadecimal digits"},
                                  {R"(\x41)", "unknown escape"},
                                  {R"(\uDC00)", "a lone surrogate"},
                                  {R"(\uD800)", "second half"},
                                  {R"(\uD800\n)", "second half"},
                                  {R"(\uD800\uD800)", "second half"},
                                  {R"(\uD800\uE000)", "second half"}};
  for (const auto& [written, text] : wrong) {
    rejected(file_of("{" + tensor(written, "F32", "1", "0,4") + "}", 4), text);
  }
}

// Bytes are in the order of the offsets, whatever the order of the names; empty ones take none.
void orders() {
  const std::string full = tensor("full", "F32", "2", "0,8"), behind = tensor("behind", "F32", "0", "8,8");
  const std::string before = tensor("before", "F32", "0,3", "0,0"), last = tensor("last", "U8", "1", "8,9");
  for (const std::string& inside :
       {full + "," + before + "," + behind + "," + last, last + "," + behind + "," + before + "," + full}) {
    const Bytes file = file_of("{" + inside + "}", 9);
    const Weights weights = required(Weights::parse(file.data(), file.size()));
    const char* const order[] = {"before", "full", "behind", "last"};
    for (size_t i = 0; i < 4; ++i) CHECK(!std::strcmp(required(weights.at(i)).name, order[i]), "%zu", i);
    CHECK(*static_cast<const unsigned char*>(required(weights.find("last")).data) == 8, "the last byte");
  }
}

void wrong_files() {
  const std::string a = tensor("a", "F32", "2", "0,8"), b = tensor("b", "F32", "1", "8,12");
  const auto of = [](const std::string& inside) { return "{" + inside + "}"; };
  required(Weights::parse(file_of(of(b + " , " + a) + "  ", 12).data(), 8 + of(b + " , " + a).size() + 2 + 12));
  required(Weights::parse(file_of("{}", 0).data(), 10));
  rejected(Bytes(7), "expected at least 8 bytes, got 7");
  rejected(with_length("{}", 3, 0), "its length says 3 bytes, the file has 2 left");
  rejected(with_length("{}", 100000001, 0), "expected at most 100000000 bytes");
  rejected(with_length("{}", ~uint64_t(0), 0), "expected at most 100000000 bytes");
  rejected(file_of(" {}", 0), "begin with '{'");
  rejected(file_of("", 0), "begin with '{'");
  rejected(file_of("{}x", 0), "expected its end at byte 2");
  rejected(file_of(of(a + "," + a), 8), "'a': a second time");
  rejected(file_of(of(a), 7), "past the end of the file");
  rejected(file_of(of(a), 9), "the tensors end at byte 8, the file's data at 9");
  rejected(file_of(of(a + "," + tensor("b", "F32", "1", "4,8")), 8), "overlap the tensor before");
  rejected(file_of(of(a + "," + tensor("b", "F32", "1", "9,13")), 13), "leave a hole after 8");
  rejected(file_of(of(tensor("a", "F32", "2", "8,0")), 8), "end before they begin");
  rejected(file_of(of(tensor("a", "F32", "3", "0,8")), 8), "its shape has 12 bytes");
  rejected(file_of(of(tensor("a", "F64", "2", "0,8")), 8), "its shape has 16 bytes");
  rejected(file_of(of(tensor("a", "F31", "2", "0,8")), 8), "unknown dtype 'F31'");
  rejected(file_of(of(tensor("a", "F32", "4294967296,4294967296", "0,8")), 8), "more than 2^64 bytes");
  rejected(file_of(of(tensor("a", "F32", "9223372036854775808", "0,8")), 8), "a number above 2^63 - 1");
  rejected(file_of(of(tensor("a", "F32", "-2", "0,8")), 8), "expected a whole number, not negative");
  rejected(file_of(of(tensor("a", "F32", "2.0", "0,8")), 8), "expected a whole number");
  rejected(file_of(of(tensor("a", "F32", "02", "0,8")), 8), "leading zero");
  rejected(file_of(of(tensor("a", "F32", "2", "0,8,9")), 8), "expected two data_offsets");
  rejected(file_of("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8), "expected dtype, shape and data_offsets");
  rejected(file_of("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4), "expected dtype, shape and data_offsets");
  rejected(file_of("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4), "expected dtype, shape and data_offsets");
  rejected(file_of("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 8), "'dtype' a second time");
  rejected(file_of("{\"a\":{\"x\":1}}", 8), "found 'x'");
  rejected(file_of("{\"__metadata__\":{\"k\":1}}", 0), "expected '\"'");
  rejected(file_of("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0), "metadata 'k' a second time");
  rejected(file_of("{\"__metadata__\":{\"k\":\"1\"},\"__metadata__\":{\"m\":\"2\"}}", 0),
           "'__metadata__' a second time");
  rejected(file_of("{\"a\\ud800\":", 0), "surrogate");
  rejected(file_of("{\"a\\u0000\":", 0), "zero byte");
  rejected(file_of("{\"a\n\":", 0), "control character");
  rejected(file_of("{\"a", 0), "expected more, found its end");
  // What is too long for a message ends with a whole character.
  const auto cut = [](size_t n) { return std::string(n - 1, 'x') + "\xC3\xA9"; };
  rejected(file_of(of(tensor(cut(200).c_str(), "F32", "3", "0,8")), 8), "x': bytes 0 to 8, but its shape has 12");
  rejected(file_of(of(tensor("a", cut(32).c_str(), "2", "0,8")), 8), "x'");
  rejected(file_of("{\"a\":{\"" + cut(64) + "\":1}}", 0), "x' at byte");
  rejected(file_of("{\"__metadata__\":{\"" + cut(64) + "\":\"1\",\"" + cut(64) + "\":\"\"}}", 0), "x' a second time");
  for (const char* path : {"fastrnn_api_tests_is_not_here", "."}) {
    CHECK(Weights::open(path).error().status() == Status::io, "%s", path);
  }
}

// A program may open several.
void wrong_files_are_named() {
  const std::string path = scratch_file("wrong");
  const std::pair<Bytes, const char*> wrong[] = {{Bytes(), "expected at least 8 bytes, got 0"},
                                                 {file_of("", 0), "header: expected it to begin with '{'"}};
  for (const auto& [bytes, reason] : wrong) {
    std::FILE* const file = std::fopen(path.c_str(), "wb");
    if (!bytes.empty()) std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
    const auto opened = Weights::open(path.c_str());
    CHECK(!opened && opened.error().status() == Status::format, "%s", reason);
    const std::string expected = "path: '" + path + "' is not a valid safetensors file: " + reason;
    CHECK(!opened && opened.error().message() == expected, "%s", opened ? "" : opened.error().message());
  }
  std::remove(path.c_str());
}

// Everything that reads a file: nothing may crash, and every error must say something.
void use(const Bytes& file, long& accepted) {
  const auto said = [](const Error& error) {
    const Status s = error.status();
    CHECK(s == Status::format || s == Status::invalid_argument, "%s", name(s));
    CHECK(error.message()[0] && std::memchr(error.message(), 0, 508), "an error without a message");
  };
  const auto weights = Weights::parse(file.data(), file.size());
  if (!weights) return said(weights.error());
  ++accepted;
  unsigned sum = 0;
  for (size_t i = 0; i < weights->count(); ++i) {
    const Tensor t = required(weights->at(i));
    for (size_t k = 0; k < t.bytes; ++k) sum += static_cast<const unsigned char*>(t.data)[k];
    sum += unsigned(std::strlen(t.name) + std::strlen(t.dtype)) + unsigned(t.rank ? t.shape[t.rank - 1] : 0);
  }
  [[maybe_unused]] volatile const unsigned kept = sum;  // or nothing would be read
  const auto lstm = Layer<float>::load(*weights, "lstm."), gru = Layer<float>::load(*weights, "gru.");
  const auto head = Linear<float>::load(*weights, "head.");
  if (!lstm) said(lstm.error());
  if (!head) said(head.error());
  if (!gru) return said(gru.error());
  std::vector<float> x(size_t(gru->config().input_size)), y(size_t(gru -> config().hidden_size));
  required(required(gru->stream()).step(x.data(), y.data()));
}

Bytes damaged(Bytes file, uint64_t seed) {
  const size_t header = std::min<size_t>(file.size(), 8 + (file.size() > 9 ? file[8 - 8] + 256u * file[1] : 0));
  const auto random = [&](uint64_t below) { return size_t((seed = mixed(seed)) % std::max<uint64_t>(1, below)); };
  for (size_t n = 1 + random(4); n > 0 && !file.empty(); --n) {
    const size_t at = random(random(8) ? header : file.size()) % file.size();
    static const char grammar[] = "{}[]\",:0123456789\\u-+.eF ";
    const size_t length = std::min(random(12), file.size() - at);
    const auto from = file.begin() + ptrdiff_t(at);
    switch (random(8)) {
      case 0:
        file[at] = static_cast<unsigned char>(random(256));
        break;
      case 1:
        file[at] ^= static_cast<unsigned char>(1u << random(8));
        break;
      case 2:
        file[at] = static_cast<unsigned char>(grammar[random(sizeof grammar - 1)]);
        break;
      case 3:
        file.erase(from, from + ptrdiff_t(length));
        break;
      case 4:
        file.insert(from, static_cast<unsigned char>(grammar[random(sizeof grammar - 1)]));
        break;
      case 5: {
        const Bytes piece(from, from + ptrdiff_t(length));
        file.insert(file.begin() + ptrdiff_t(random(file.size())), piece.begin(), piece.end());
        break;
      }
      case 6: {  // another digit: sizes, offsets, shapes
        const auto digit = std::find_if(from, file.end(), [](unsigned char c) { return c >= '0' && c <= '9'; });
        if (digit != file.end()) *digit = static_cast<unsigned char>('0' + random(10));
        break;
      }
      default:
        file[random(std::min<size_t>(8, file.size()))] = static_cast<unsigned char>(random(256));
        break;
    }
    // Half the time the length fits again, so that the damage is met by the parser behind it.
    if (random(2) && file.size() > 8) {
      const auto end = std::find(file.rbegin(), file.rend(), '}');
      const uint64_t fits = end == file.rend() ? 0 : uint64_t(file.rend() - end) - 8;
      for (int i = 0; i < 8; ++i) file[size_t(i)] = static_cast<unsigned char>(fits >> (8 * i));
    }
  }
  return file;
}

}  // namespace

void test_files() {
  saved<float>("float.safetensors"), saved<double>("double.safetensors");
  wrong_files();
  wrong_files_are_named();
  names();
  orders();
}

void test_mutations() {
  const Bytes file = saved<float>("mutated.safetensors");
  long accepted = 0, tried = 0;
  for (size_t n = 0; n < file.size(); ++n, ++tried) use(Bytes(file.begin(), file.begin() + ptrdiff_t(n)), accepted);
  CHECK(accepted == 0, "%ld truncated files were accepted", accepted);
  for (uint64_t seed = 0; seed < 100000; ++seed, ++tried) use(damaged(file, seed), accepted);
  std::printf("%ld damaged files: %ld still valid, an error for each of the others\n", tried, accepted);
}

}  // namespace fastrnn::tests
