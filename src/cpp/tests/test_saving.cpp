// A saved file takes the place of another as a whole: beside other writers, through links, with its mode. It says what
// it was given.
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>
#include <type_traits>

#if !defined(_WIN32)
#include <sys/stat.h>
#endif

#include "tests/api_check.h"

namespace fastrnn::tests {
namespace {

namespace fs = std::filesystem;

static_assert(std::is_constructible_v<Module, const char*, const Layer<float>&, const Entry (&)[1]> &&
                  !std::is_constructible_v<Module, const char*, const Layer<float>&, Entry (&&)[1]>,
              "what is to be remembered outlives the module");

Layer<float> layer_of(uint64_t seed) {
  return ready_layer<float>(config_of(Cell::gru, 20, 30, 1, 0, false, false), seed);
}

bool same(const Layer<float>& a, const Layer<float>& b) {
  for (size_t i = 0; i < a.count(); ++i) {
    const Tensor x = required(a.at(i)), y = required(b.at(i));
    if (x.bytes != y.bytes || std::memcmp(x.data, y.data, x.bytes)) return false;
  }
  return true;
}

// A folder of its own for each test, removed afterwards, or by the next run where this one was cut off.
struct Folder {
  fs::path path = scratch_file("saving");
  Folder() { fs::remove_all(path), fs::create_directory(path); }
  ~Folder() { fs::remove_all(path); }
  std::string file(const char* name) const { return (path / name).string(); }
  long count() const { return long(std::distance(fs::directory_iterator(path), fs::directory_iterator())); }
};

void two_writers() {
  const Folder folder;
  const std::string path = folder.file("both");
  const Layer<float> layers[] = {layer_of(1), layer_of(2)};
  required(save(path.c_str(), {{"gru.", layers[0]}}));
  std::thread other([&] {
    for (int i = 0; i < 100; ++i) required(save(path.c_str(), {{"gru.", layers[1]}}));
  });
  for (int i = 0; i < 100; ++i) {
    required(save(path.c_str(), {{"gru.", layers[0]}}));
    const Layer<float> found = required(Layer<float>::load(required(Weights::open(path.c_str())), "gru."));
    CHECK(same(found, layers[0]) || same(found, layers[1]), "a mixture of both after %d", i);
  }
  other.join();
  CHECK(folder.count() == 1, "%ld files", folder.count());
}

void neighbours_are_left_alone() {
  const Folder folder;
  const Layer<float> layer = layer_of(1);
  const std::string path = folder.file("file"), part = folder.file("file.part");
  std::ofstream(part) << "somebody's";
  required(save(path.c_str(), {{"gru.", layer}}));
  std::string text;
  std::ifstream(part) >> text;
  CHECK(text == "somebody's" && folder.count() == 2, "%s", text.c_str());
  const auto failed = save(folder.file("nowhere/file").c_str(), {{"gru.", layer}});
  CHECK(!failed && std::strstr(failed.error().message(), "No such file"), "no reason given");
  CHECK(!save(folder.path.string().c_str(), {{"gru.", layer}}) && !save("", {{"gru.", layer}}), "no file");
}

// Each tensor begins at a multiple of its element's size, whatever the lengths of the names and the number of floats.
void tensors_are_aligned() {
  const Folder folder;
  const std::string path = folder.file("aligned");
  const Layer<float> three = ready_layer<float>(config_of(Cell::rnn_tanh, 2, 1, 1, 0, false, false));
  Linear<double> head = required(Linear<double>::make(1, 1));
  const double values[2] = {3, 4};
  required(head.set(values, values + 1));
  for (size_t n = 1; n <= 8; ++n) {
    const std::string prefix = std::string(n, 'a') + ".";
    required(save(path.c_str(), {{prefix.c_str(), three}, {"head.", head}}));
    unsigned char length[8];
    std::ifstream(path, std::ios::binary).read(reinterpret_cast<char*>(length), 8);
    CHECK(length[0] % 8 == 0, "a header of %d bytes more than a multiple of 8", length[0] % 8);
    const Weights weights = required(Weights::open(path.c_str()));
    const char* const first = static_cast<const char*>(required(weights.at(0)).data);
    for (size_t i = 0; i < weights.count(); ++i) {
      const Tensor t = required(weights.at(i));
      const auto begin = static_cast<const char*>(t.data) - first;
      CHECK(begin % (i < 2 ? 8 : 4) == 0 && !std::strcmp(t.dtype, i < 2 ? "F64" : "F32"), "%s at %td", t.name, begin);
    }
    double x = 2, y = 0;
    required(required(Linear<double>::load(weights, "head.")).step(&x, &y));
    CHECK(y == 10 && same(required(Layer<float>::load(weights, prefix.c_str())), three), "what was saved");
  }
}

// In memory as on disk, and back.
void the_same_bytes_in_memory() {
  const Folder folder;
  const std::string path = folder.file("file");
  const Layer<float> layer = layer_of(1);
  Linear<double> head = required(Linear<double>::make(1, 1));
  const double values[2] = {3, 4};
  required(head.set(values, values + 1));
  required(save(path.c_str(), {{"gru.", layer}, {"head.", head}}));
  std::ifstream stream(path, std::ios::binary);
  const std::string file((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  const auto bytes = required(serialize({{"gru.", layer}, {"head.", head}}));
  CHECK(bytes.size() == file.size() && !std::memcmp(bytes.data(), file.data(), file.size()), "not the file");
  const Weights weights = required(Weights::parse(bytes.data(), bytes.size()));
  CHECK(same(required(Layer<float>::load(weights, "gru.")), layer), "what was saved");
  const fastrnn_module modules[] = {Module("gru.", layer), Module("head.", head)};
  std::vector<char> room(file.size() + 1, 'x');
  size_t size = 7;
  Error error;
  const auto into = [&](size_t capacity) {
    return Status(fastrnn_serialize(modules, 2, room.data(), capacity, &size, error.raw()));
  };
  CHECK(into(file.size() - 1) == Status::invalid_argument && size == 7 && room[0] == 'x', "too little room");
  const std::string expected = std::to_string(file.size()), got = std::to_string(file.size() - 1);
  CHECK(error.message() == "capacity: expected at least " + expected + " bytes, got " + got, "%s", error.message());
  CHECK(into(room.size()) == Status::ok && size == file.size() && room.back() == 'x', "room enough");
  CHECK(!std::memcmp(room.data(), file.data(), file.size()), "not the file");
  CHECK(fastrnn_serialize(modules, 2, nullptr, 0, nullptr, nullptr) == FASTRNN_INVALID_ARGUMENT, "no size wanted");
}

void what_the_caller_adds() {
  const Folder folder;
  const std::string path = folder.file("file");
  const Layer<float> layer = layer_of(1);
  const Entry about[] = {{"sample_rate", "48000"}, {"name", "\"Gl\xC3\xBC\\hw\n\""}, {"empty", ""}};
  required(save(path.c_str(), {{"gru.", layer, about}}));
  const Weights weights = required(Weights::open(path.c_str()));
  for (const Entry& entry : about) {
    const char* const found = weights.metadata((std::string("gru.") + entry.key).c_str());
    CHECK(found && !std::strcmp(found, entry.value), "%s: %s", entry.key, found ? found : "missing");
  }
  CHECK(same(required(Layer<float>::load(weights, "gru.")), layer), "with metadata");
  const Weights alone = required(Weights::open((required(save(path.c_str(), {{"", layer, about}})), path.c_str())));
  CHECK(!std::strcmp(alone.metadata("sample_rate"), "48000"), "of a module alone");
  const auto bad = [&](Entry entry, const char* text, const char* prefix = "gru.") {
    const Entry two[] = {{"fine", ""}, entry};
    const auto result = serialize({{prefix, layer, two}});
    CHECK(!result && result.error().status() == Status::invalid_argument, "accepted, expected: %s", text);
    if (!result) CHECK(std::strstr(result.error().message(), text), "%s, not %s", result.error().message(), text);
  };
  bad({"cell", "lstm"}, "metadata: 'cell' is a key of fastrnn's own, or there a second time");
  bad({"fine", "again"}, "metadata: 'fine' is a key of fastrnn's own, or there a second time");
  bad({"format", "mine"}, "metadata: 'format' is a key of fastrnn's own", "");
  bad({"", "x"}, "metadata: expected a key without '.', got ''");
  bad({"a.b", "x"}, "metadata: expected a key without '.', got 'a.b'");
  bad({"a\xFF", "x"}, "metadata: expected UTF-8, got the byte 255 after 'a'");
  bad({"a", "x\xC3"}, "metadata: expected UTF-8, got the byte 195 after 'x'");
  bad({nullptr, "x"}, "metadata: expected a pointer, got NULL");
  bad({"a", nullptr}, "metadata: expected a pointer, got NULL");
  fastrnn_module none = Module("gru.", layer);
  none.entries = 1;
  CHECK(!serialize(&none, 1) && !serialize(nullptr, 1) && !serialize(&none, 0), "entries that are not there");
}

void as_many_as_there_are() {
  const Folder folder;
  const std::string path = folder.file("many");
  std::vector<Layer<float>> layers;
  std::vector<std::string> prefixes;
  for (uint64_t i = 0; i < 3; ++i) layers.push_back(layer_of(i)), prefixes.push_back(std::to_string(i) + ".");
  std::vector<fastrnn_module> modules;
  for (size_t i = 0; i < 3; ++i) modules.push_back(Module(prefixes[i].c_str(), layers[i]));
  required(save(path.c_str(), modules.data(), modules.size()));
  const Weights weights = required(Weights::open(path.c_str()));
  for (size_t i = 0; i < 3; ++i) {
    CHECK(same(required(Layer<float>::load(weights, prefixes[i].c_str())), layers[i]), "layer %zu", i);
  }
  CHECK(!save(path.c_str(), modules.data(), 0) && !save(path.c_str(), nullptr, 1), "no modules");
}

// JSON has its own words for some of them.
void every_ascii_in_a_prefix() {
  const Folder folder;
  const std::string path = folder.file("prefix");
  const Layer<float> layer = layer_of(1);
  for (char c = 1; c > 0 && c < 127; ++c) {
    const std::string prefix = std::string("a") + c + "b.";
    required(save(path.c_str(), {{prefix.c_str(), layer}}));
    const auto loaded = Layer<float>::load(required(Weights::open(path.c_str())), prefix.c_str());
    CHECK(loaded && same(*loaded, layer), "a prefix with the byte %d: %s", c, loaded ? "" : loaded.error().message());
  }
}

#if !defined(_WIN32)
void links_to_links() {
  const Folder folder;
  const Layer<float> layer = layer_of(1);
  fs::create_directory(folder.path / "below");
  fs::create_symlink("below/second", folder.path / "first");
  fs::create_symlink("../file", folder.path / "below" / "second");
  for (const char* what : {"a file that is not there yet", "a file"}) {
    required(save(folder.file("first").c_str(), {{"gru.", layer}}));
    CHECK(fs::is_symlink(folder.path / "first") && fs::is_symlink(folder.path / "below" / "second") &&
              fs::is_regular_file(fs::symlink_status(folder.path / "file")),
          "two links to %s", what);
  }
  CHECK(folder.count() == 3, "%ld entries", folder.count());
}

void only_files_are_replaced() {
  const Folder folder;
  const Layer<float> layer = layer_of(1);
  const std::string pipe = folder.file("pipe"), link = folder.file("link"), below = folder.file("below");
  CHECK(mkfifo(pipe.c_str(), 0600) == 0, "no pipe");
  fs::create_symlink("pipe", link);
  fs::create_directory(below);
  fs::create_symlink("there", folder.path / "here"), fs::create_symlink("here", folder.path / "there");
  const auto round = save(folder.file("here").c_str(), {{"gru.", layer}});
  CHECK(!round && std::strstr(round.error().message(), "links that lead to each other"), "written over a loop");
  for (const std::string& path : {pipe, link, below}) {
    const auto saved = save(path.c_str(), {{"gru.", layer}});
    CHECK(!saved && saved.error().status() == Status::io, "written over %s", path.c_str());
    CHECK(std::strstr(saved.error().message(), "what is there is no file"), "%s", saved.error().message());
  }
  CHECK(fs::is_fifo(fs::symlink_status(pipe)) && fs::is_symlink(link) && folder.count() == 5, "all as it was");
}

void links_and_modes() {
  const Folder folder;
  const Layer<float> layer = layer_of(1);
  const std::string path = folder.file("file"), link = folder.file("link");
  fs::create_symlink("file", link);
  required(save(link.c_str(), {{"gru.", layer_of(2)}}));
  const fs::perms owner = fs::perms::owner_read | fs::perms::owner_write;
  fs::permissions(path, owner);
  required(save(link.c_str(), {{"gru.", layer}}));
  CHECK(fs::is_symlink(link) && fs::status(path).permissions() == owner, "mode %o",
        unsigned(fs::status(path).permissions()));
  CHECK(same(required(Layer<float>::load(required(Weights::open(path.c_str())), "gru.")), layer), "by the link");
}
#endif

}  // namespace

void test_saving() {
  two_writers();
  neighbours_are_left_alone();
  tensors_are_aligned();
  the_same_bytes_in_memory();
  what_the_caller_adds();
  as_many_as_there_are();
  every_ascii_in_a_prefix();
#if !defined(_WIN32)
  links_and_modes();
  links_to_links();
  only_files_are_replaced();
#endif
}

}  // namespace fastrnn::tests
