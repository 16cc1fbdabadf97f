// A saved file takes the place of another as a whole: beside other writers, through links, with its mode.
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/api_check.h"

namespace fastrnn::tests {
namespace {

namespace fs = std::filesystem;

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

// A folder of its own for each test, removed afterwards.
struct Folder {
  fs::path path = scratch_file("saving");
  Folder() { fs::create_directory(path); }
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

#if !defined(_WIN32)
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
#if !defined(_WIN32)
  links_and_modes();
#endif
}

}  // namespace fastrnn::tests
