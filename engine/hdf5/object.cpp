// HDF5 behind one class: files, objects and attributes here, the contents of datasets in hdf5_data.cpp.
#include <unistd.h>

#include <algorithm>

#include "engine/hdf5/handles.h"

namespace lc {

using namespace h5;

// ---- errors -----------------------------------------------------------------------------------------------------------------

void h5::quiet() {
  static const bool first = [] {  // at exit the library would close files that could not be written once more, and crash; we close our own
    H5dont_atexit();
    register_lzf();
    return true;
  }();
  thread_local const bool done = [] {  // the library keeps one error stack per thread and prints each unless told not to
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    return true;
  }();
  (void)first, (void)done;
}

// The innermost message of the library's error stack says why; of a failed system call only the system's own words are kept.
std::string h5::reason() {
  std::string text;
  const auto keep = [](unsigned depth, const H5E_error2_t* error, void* out) -> herr_t {
    if (depth == 0 && error->desc) *static_cast<std::string*>(out) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep, &text);
  std::replace(text.begin(), text.end(), '\n', ' ');
  constexpr std::string_view words = "error message = '";
  if (const size_t at = text.find(words); at != std::string::npos)
    text = text.substr(at + words.size(), text.find('\'', at + words.size()) - at - words.size());
  return text.empty() ? "HDF5 gives no reason" : text;
}

void h5::cannot_read(const H5Object& object, std::string_view what) {
  throw DataError(fmt::format("{}: {} cannot be read: {}; the file is damaged or of a form this program does not know", object.where(),
                              what, reason()));
}

void h5::cannot_write(const H5Object& object, std::string_view what) {
  throw ResourceError(fmt::format("{}: {} cannot be written: {}; check free space and permissions", object.where(), what, reason()));
}

H5Object::File::~File() {
  if (id >= 0) H5Idec_ref(id);
  if (descriptor >= 0) ::close(descriptor);
}

H5Object::Handle::~Handle() {
  if (id >= 0 && H5Iis_valid(id) > 0) H5Idec_ref(id);  // closed already when its file was closed
}

// ---- files ------------------------------------------------------------------------------------------------------------------

namespace {

hid_t open_file(int descriptor, const std::string& path, H5Open how) {
  const Id access = access_to(descriptor, path);
  const std::string name = name_of(descriptor);
  if (how == H5Open::create) {
    const hid_t id = H5Fcreate(name.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
    if (id < 0) throw ResourceError(fmt::format("{}: cannot be created: {}; check free space and permissions", path, reason()));
    return id;
  }
  const hid_t id = H5Fopen(name.c_str(), how == H5Open::edit ? H5F_ACC_RDWR : H5F_ACC_RDONLY, access);
  if (id >= 0) return id;
  const std::string why = reason();
  if (why.find("truncated") != std::string::npos)
    throw DataError(fmt::format("{}: the file is cut short ({}); copy or download it again", path, why));
  if (why.find("signature") != std::string::npos) throw DataError(fmt::format("{}: not an HDF5 file", path));
  throw DataError(fmt::format("{}: cannot be opened: {}", path, why));
}

}  // namespace

H5Object::H5Object(std::shared_ptr<File> file, std::int64_t id, std::string path)
    : file_(std::move(file)), handle_(std::make_shared<Handle>(id)), path_(std::move(path)) {}

// quiet() first: even a constant like H5F_ACC_RDONLY starts the library.
H5Object H5Object::open(int descriptor, const std::string& path, H5Open how) {
  quiet();
  auto file = std::make_shared<File>(path, descriptor);
  file->id = open_file(descriptor, file->path, how);
  const hid_t root = H5Oopen(file->id, "/", H5P_DEFAULT);
  if (root < 0) throw DataError(fmt::format("{}: the root group cannot be opened: {}", path, reason()));
  return H5Object(std::move(file), root, "");
}

void H5Object::close() const {
  if (file_->id < 0) return;
  const bool flushed = H5Fflush(file_->id, H5F_SCOPE_GLOBAL) >= 0;
  const std::string why = flushed ? "" : reason();
  const bool closed = H5Fclose(file_->id) >= 0;
  file_->id = -1;
  if (!flushed || !closed)
    throw ResourceError(fmt::format("{}: cannot be written: {}; check free space and permissions", file_->path, flushed ? reason() : why));
}

// ---- objects ----------------------------------------------------------------------------------------------------------------

std::int64_t H5Object::id() const { return handle_->id; }

std::string H5Object::join(std::string_view path) const { return path.empty() ? path_ : path_ + "/" + std::string(path); }

std::string H5Object::where(std::string_view path) const {
  const std::string object = join(path);
  return object.empty() ? file_->path : file_->path + ":" + object;
}

bool H5Object::has(std::string_view path) const {
  quiet();
  if (is_dataset()) return false;
  for (size_t end = 0; end != std::string_view::npos;) {  // H5Lexists wants every step before the last one to exist
    end = path.find('/', end + 1);
    const std::string part(path.substr(0, end));
    if (H5Lexists(id(), part.c_str(), H5P_DEFAULT) <= 0) return false;
    refuse_links(part);
    if (H5Oexists_by_name(id(), part.c_str(), H5P_DEFAULT) <= 0) return false;
  }
  return true;
}

bool H5Object::is_group() const { return H5Iget_type(id()) == H5I_GROUP; }
bool H5Object::is_dataset() const { return H5Iget_type(id()) == H5I_DATASET; }

H5Object H5Object::made(std::string_view path, std::int64_t id) const { return H5Object(file_, id, join(path)); }

void H5Object::refuse_links(const std::string& step) const {
  H5L_info_t link;
  if (H5Lget_info(id(), step.c_str(), &link, H5P_DEFAULT) >= 0 && link.type != H5L_TYPE_HARD && link.type != H5L_TYPE_SOFT)
    throw DataError(fmt::format("{}: a link to another file, which is never followed; copy the data into this file", where(step)));
}

H5Object H5Object::at(std::string_view path) const {
  if (!has(path)) throw DataError(fmt::format("{}: not in the file", where(path)));
  const std::string text(path);
  hid_t object = H5Oopen(id(), text.c_str(), H5P_DEFAULT);
  if (object < 0) throw DataError(fmt::format("{}: cannot be opened: {}; the file is damaged", where(path), reason()));
  if (H5Iget_type(object) != H5I_DATASET) return made(path, object);
  const Id access = cache_for(object);
  if (const std::string why = kept_elsewhere(object); !why.empty()) {
    H5Idec_ref(object);
    throw DataError(fmt::format("{}: {}, which is never followed; copy the data into this file", where(path), why));
  }
  if (access >= 0) {
    H5Idec_ref(object);
    object = H5Dopen2(id(), text.c_str(), access);
    if (object < 0) throw DataError(fmt::format("{}: cannot be opened: {}; the file is damaged", where(path), reason()));
  }
  return made(path, object);
}

std::vector<std::string> H5Object::children() const {
  const Id creation(H5Gget_create_plist(id()));
  unsigned order = 0;
  const bool tracked = creation >= 0 && H5Pget_link_creation_order(creation, &order) >= 0 && (order & H5P_CRT_ORDER_INDEXED) != 0;
  std::vector<std::string> names;
  const auto collect = [](hid_t, const char* name, const H5L_info_t*, void* out) -> herr_t {
    static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  if (H5Literate(id(), tracked ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME, H5_ITER_INC, nullptr, collect, &names) < 0)
    cannot_read(*this, "the group");
  return names;
}

H5Object H5Object::group(std::string_view path) const {
  if (path.empty()) return *this;
  if (has(path)) {
    H5Object there = at(path);
    if (!there.is_group()) throw DataError(fmt::format("{}: wanted a group, found a dataset", there.where()));
    return there;
  }
  const hid_t made_id = H5Gcreate2(id(), std::string(path).c_str(), link_creation(), H5P_DEFAULT, H5P_DEFAULT);
  if (made_id < 0) cannot_write(*this, fmt::format("the group {}", path));
  return made(path, made_id);
}

void H5Object::remove(std::string_view path) const {
  if (has(path) && H5Ldelete(id(), std::string(path).c_str(), H5P_DEFAULT) < 0) cannot_write(*this, fmt::format("the removal of {}", path));
}

void H5Object::copy_from(const H5Object& source, std::string_view path) const {
  quiet();
  const Id how(H5Pcreate(H5P_OBJECT_COPY));
  H5Pset_copy_object(how, H5O_COPY_EXPAND_REFERENCE_FLAG);
  if (H5Ocopy(source.id(), ".", id(), std::string(path).c_str(), how, link_creation()) < 0)
    throw ResourceError(
        fmt::format("{}: cannot be copied to {}: {}; check the input and free space", source.where(), where(path), reason()));
}

// ---- attributes -------------------------------------------------------------------------------------------------------------

namespace {

struct Attribute {
  Id id, type, space;
  hssize_t count;
};

Attribute open_attribute(const H5Object& object, hid_t id, std::string_view name) {
  Id attribute(H5Aopen(id, std::string(name).c_str(), H5P_DEFAULT));
  if (attribute < 0) throw DataError(fmt::format("{}: has no readable attribute '{}'", object.where(), name));
  Id type(H5Aget_type(attribute)), space(H5Aget_space(attribute));
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  return {std::move(attribute), std::move(type), std::move(space), count};
}

[[noreturn]] void wrong_attribute(const H5Object& object, std::string_view name, std::string_view wanted) {
  throw DataError(fmt::format("{}: attribute '{}': wanted {}, got something else", object.where(), name, wanted));
}

}  // namespace

bool H5Object::has_attribute(std::string_view attribute) const { return H5Aexists(id(), std::string(attribute).c_str()) > 0; }

std::vector<std::string> H5Object::attributes() const {
  std::vector<std::string> names;
  const auto collect = [](hid_t, const char* name, const H5A_info_t*, void* out) -> herr_t {
    static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  if (H5Aiterate2(id(), H5_INDEX_NAME, H5_ITER_INC, nullptr, collect, &names) < 0) cannot_read(*this, "the list of attributes");
  return names;
}

std::vector<std::string> H5Object::texts(std::string_view attribute) const {
  const Attribute a = open_attribute(*this, id(), attribute);
  if (a.count <= 0) return {};
  if (H5Tget_class(a.type) != H5T_STRING) wrong_attribute(*this, attribute, "text");
  StringBuffer buffer(a.type, a.space, static_cast<size_t>(a.count));
  if (H5Aread(a.id, buffer.type(), buffer.data()) < 0) cannot_read(*this, fmt::format("attribute '{}'", attribute));
  return buffer.take();
}

std::string H5Object::text(std::string_view attribute) const {
  std::vector<std::string> found = texts(attribute);
  if (found.size() != 1) wrong_attribute(*this, attribute, "one text");
  return std::move(found.front());
}

std::string H5Object::text_or(std::string_view attribute, std::string_view otherwise) const {
  if (!has_attribute(attribute)) return std::string(otherwise);
  const Attribute a = open_attribute(*this, id(), attribute);
  return a.count == 1 && H5Tget_class(a.type) == H5T_STRING ? text(attribute) : std::string(otherwise);
}

std::vector<std::int64_t> H5Object::integers(std::string_view attribute) const {
  const Attribute a = open_attribute(*this, id(), attribute);
  const H5T_class_t what = H5Tget_class(a.type);
  if (what != H5T_INTEGER && what != H5T_ENUM && what != H5T_FLOAT) wrong_attribute(*this, attribute, "whole numbers");
  std::vector<std::int64_t> values(static_cast<size_t>(std::max<hssize_t>(a.count, 0)));
  if (!values.empty() && H5Aread(a.id, H5T_NATIVE_INT64, values.data()) < 0) cannot_read(*this, fmt::format("attribute '{}'", attribute));
  return values;
}

std::int64_t H5Object::integer(std::string_view attribute) const {
  const std::vector<std::int64_t> found = integers(attribute);
  if (found.size() != 1) wrong_attribute(*this, attribute, "one whole number");
  return found.front();
}

H5Object H5Object::referenced(std::string_view attribute) const {
  const Attribute a = open_attribute(*this, id(), attribute);
  hobj_ref_t reference = 0;
  if (a.count != 1 || H5Tequal(a.type, H5T_STD_REF_OBJ) <= 0) wrong_attribute(*this, attribute, "an object reference");
  if (H5Aread(a.id, H5T_STD_REF_OBJ, &reference) < 0) cannot_read(*this, fmt::format("attribute '{}'", attribute));
  const hid_t object = H5Rdereference2(id(), H5P_DEFAULT, H5R_OBJECT, &reference);
  if (object < 0) cannot_read(*this, fmt::format("the object that attribute '{}' refers to", attribute));
  std::string path(static_cast<size_t>(std::max<ssize_t>(H5Iget_name(object, nullptr, 0), 0)) + 1, '\0');
  H5Iget_name(object, path.data(), path.size());
  path.pop_back();
  return H5Object(file_, object, path);
}

void H5Object::set_attribute(std::string_view attribute, std::int64_t type, std::optional<size_t> count, const void* data) const {
  quiet();
  const std::string name(attribute);
  const hsize_t extent = count.value_or(1);
  const Id space(count ? H5Screate_simple(1, &extent, nullptr) : H5Screate(H5S_SCALAR));
  if (has_attribute(attribute) && H5Adelete(id(), name.c_str()) < 0) cannot_write(*this, fmt::format("attribute '{}'", attribute));
  const Id made_id(H5Acreate2(id(), name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT));
  if (made_id < 0 || (extent > 0 && H5Awrite(made_id, type, data) < 0)) cannot_write(*this, fmt::format("attribute '{}'", attribute));
}

void H5Object::set_text(std::string_view attribute, std::string_view text) const {
  const std::string copy(text);
  const char* pointer = copy.c_str();
  set_attribute(attribute, text_type(), std::nullopt, &pointer);
}

void H5Object::set_integer(std::string_view attribute, std::int64_t value) const {
  set_attribute(attribute, H5T_NATIVE_INT64, std::nullopt, &value);
}
void H5Object::set_double(std::string_view attribute, double value) const {
  set_attribute(attribute, H5T_NATIVE_DOUBLE, std::nullopt, &value);
}
void H5Object::set_bool(std::string_view attribute, H5Bool value) const { set_attribute(attribute, bool_type(), std::nullopt, &value); }

void H5Object::set_texts(std::string_view attribute, const std::vector<std::string>& texts) const {
  std::vector<const char*> pointers;
  for (const std::string& text : texts) pointers.push_back(text.c_str());
  set_attribute(attribute, text_type(), pointers.size(), pointers.data());
}

void H5Object::set_integers(std::string_view attribute, const std::vector<std::int64_t>& values) const {
  set_attribute(attribute, H5T_NATIVE_INT64, values.size(), values.data());
}

void H5Object::set_reference(std::string_view attribute, const H5Object& target) const {
  hobj_ref_t reference = 0;
  if (H5Rcreate(&reference, target.id(), ".", H5R_OBJECT, -1) < 0) cannot_write(*this, fmt::format("attribute '{}'", attribute));
  set_attribute(attribute, H5T_STD_REF_OBJ, std::nullopt, &reference);
}

void H5Object::copy_attributes(const H5Object& source) const {
  for (const std::string& name : source.attributes()) {
    const Attribute a = open_attribute(source, source.id(), name);
    if (H5Tget_class(a.type) == H5T_REFERENCE) continue;
    const Id memory(H5Tget_native_type(a.type, H5T_DIR_ASCEND));
    const size_t count = static_cast<size_t>(std::max<hssize_t>(a.count, 0));
    std::vector<char> bytes(count * H5Tget_size(memory));
    if (memory < 0 || (count > 0 && H5Aread(a.id, memory, bytes.data()) < 0)) cannot_read(source, fmt::format("attribute '{}'", name));
    if (has_attribute(name)) H5Adelete(id(), name.c_str());
    const Id made_id(H5Acreate2(id(), name.c_str(), a.type, a.space, H5P_DEFAULT, H5P_DEFAULT));
    const bool written = made_id >= 0 && (count == 0 || H5Awrite(made_id, memory, bytes.data()) >= 0);
    if (count > 0) H5Dvlen_reclaim(memory, a.space, H5P_DEFAULT, bytes.data());
    if (!written) cannot_write(*this, fmt::format("attribute '{}'", name));
  }
}

}  // namespace lc
