# The library for C and C++: libfastrnn, static and shared, its headers, and what other projects find it by. Included by
# src/cpp/CMakeLists.txt, whose folder the paths start at.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
include(CheckLinkerFlag)

set(file_sources
  file/json.cpp
  file/replacing_file.cpp
  file/safetensors.cpp
  file/text.cpp)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # Whoever reads weights waits for a disk; 44 KB of the package.
  set_source_files_properties(${file_sources} PROPERTIES COMPILE_OPTIONS "$<$<CONFIG:Release>:-Os>")
endif()
set(library_sources
  api/errors.cpp
  api/layer.cpp
  api/linear.cpp
  api/pool.cpp
  api/save.cpp
  api/sequence.cpp
  api/stream.cpp
  api/weights.cpp
  ${file_sources})
set(public_headers include/fastrnn/fastrnn.h include/fastrnn/fastrnn.hpp include/fastrnn/macros.h
  include/fastrnn/streams.h include/fastrnn/streams.hpp include/fastrnn/values.hpp)
configure_file(include/fastrnn/version.h.in ${PROJECT_BINARY_DIR}/generated/include/fastrnn/version.h @ONLY)

# In a wheel everything lies inside the package, and links between files do not survive.
if(under_scikit_build)
  set(library_place fastrnn/lib)
  set(header_place fastrnn/include)
  set(program_place fastrnn/bin)
else()
  set(library_place ${CMAKE_INSTALL_LIBDIR})
  set(header_place ${CMAKE_INSTALL_INCLUDEDIR})
  set(program_place ${CMAKE_INSTALL_BINDIR})
endif()
set(package_place ${library_place}/cmake/fastrnn)

# What a compiler of C that links the static library does not add of itself: stdc++ or c++, and m.
set(cxx_libraries "")
foreach(implicit IN LISTS CMAKE_CXX_IMPLICIT_LINK_LIBRARIES)
  if(implicit MATCHES "^((std)?c\\+\\+|m$)")
    list(APPEND cxx_libraries ${implicit})
  endif()
endforeach()

# What both have in common. The API is compiled for each: in the static one it is as hidden as the rest, so that a
# plug-in that contains it shows none of it to its host.
function(fastrnn_library target kind export)
  add_library(${target} ${kind} ${library_sources} ${core_objects})
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src/cpp/include>
    $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/generated/include>
    $<INSTALL_INTERFACE:${header_place}>)
  # fastrnn.hpp needs C++17; a project that has only C knows no features of C++.
  target_compile_features(${target} PRIVATE cxx_std_17 INTERFACE $<$<BOOL:$<CXX_COMPILER_ID>>:cxx_std_17>)
  target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:fastrnn_options>)
  set_target_properties(${target} PROPERTIES OUTPUT_NAME fastrnn EXPORT_NAME ${export})
  add_library(fastrnn::${export} ALIAS ${target})
  if(FASTRNN_INSTALL)
    install(TARGETS ${target} EXPORT fastrnn_${export}
      RUNTIME DESTINATION ${program_place}
      LIBRARY DESTINATION ${library_place}
      ARCHIVE DESTINATION ${library_place})
    install(EXPORT fastrnn_${export} NAMESPACE fastrnn:: DESTINATION ${package_place} FILE fastrnn-${export}.cmake)
  endif()
endfunction()

if(FASTRNN_BUILD_SHARED)
  fastrnn_library(fastrnn_shared SHARED fastrnn)
  target_compile_definitions(fastrnn_shared PRIVATE FASTRNN_BUILDING)
  set_target_properties(fastrnn_shared PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}) # a DLL beside programs
  target_link_libraries(fastrnn_shared PRIVATE fastrnn_small ${fastrnn_threads})
  if(kernels_apart)
    target_link_libraries(fastrnn_shared PRIVATE fastrnn_kernels)
    set_target_properties(fastrnn_shared PROPERTIES INSTALL_RPATH "$ORIGIN")
    install(TARGETS fastrnn_kernels EXPORT fastrnn_fastrnn LIBRARY DESTINATION ${library_place})
  endif()
  if(NOT under_scikit_build)
    set_target_properties(fastrnn_shared PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${FASTRNN_ABI})
  endif()
  # The standard library's templates are visible whatever -fvisibility says; only the API is to be.
  if(APPLE)
    target_link_options(fastrnn_shared PRIVATE -Wl,-exported_symbol,_fastrnn_*)
  elseif(UNIX)
    # The OpenMP run-time's threads idle in its code after a call: unmapped by dlclose() under them, it crashes the host.
    # A library that stays keeps those it needs.
    check_linker_flag(CXX -Wl,-z,nodelete fastrnn_nodelete)
    target_link_options(fastrnn_shared PRIVATE $<$<BOOL:${fastrnn_nodelete}>:-Wl,-z,nodelete>)
    target_link_options(fastrnn_shared PRIVATE -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/fastrnn.map)
    set_property(TARGET fastrnn_shared APPEND PROPERTY LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/fastrnn.map)
  endif()
endif()

if(FASTRNN_BUILD_STATIC)
  fastrnn_library(fastrnn_static STATIC static)
  target_compile_definitions(fastrnn_static PUBLIC FASTRNN_STATIC)
  target_link_libraries(fastrnn_static PUBLIC ${fastrnn_threads} INTERFACE "$<$<LINK_LANGUAGE:C>:${cxx_libraries}>")
  if(WIN32)
    set_target_properties(fastrnn_static PROPERTIES OUTPUT_NAME fastrnn_static) # fastrnn.lib is the import library
  endif()
  if(NOT TARGET fastrnn::fastrnn) # as in fastrnn-config.cmake
    add_library(fastrnn::fastrnn ALIAS fastrnn_static)
  endif()
endif()

if(NOT FASTRNN_INSTALL)
  return()
endif()
install(FILES ${public_headers} ${PROJECT_BINARY_DIR}/generated/include/fastrnn/version.h
  DESTINATION ${header_place}/fastrnn)

set(needs_openmp OFF)
if(TARGET OpenMP::OpenMP_CXX)
  set(needs_openmp ON)
endif()
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/fastrnn-config.cmake.in fastrnn-config.cmake
  INSTALL_DESTINATION ${package_place} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(fastrnn-config-version.cmake VERSION ${PROJECT_VERSION} COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fastrnn-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/fastrnn-config-version.cmake
  DESTINATION ${package_place})

file(RELATIVE_PATH pc_prefix "/${library_place}/pkgconfig" "/")
if(NOT under_scikit_build AND NOT IS_ABSOLUTE "${library_place}")
  list(TRANSFORM cxx_libraries PREPEND -l OUTPUT_VARIABLE pc_private)
  if(needs_openmp)
    list(PREPEND pc_private ${OpenMP_CXX_FLAGS})
  endif()
  list(JOIN pc_private " " pc_private)
  string(APPEND pc_private " -lpthread")
  set(pc_flags "")
  set(pc_libraries -lfastrnn)
  if(TARGET fastrnn_static AND NOT TARGET fastrnn_shared) # then its needs are nothing private
    get_target_property(pc_name fastrnn_static OUTPUT_NAME)
    set(pc_flags " -DFASTRNN_STATIC")
    set(pc_libraries "-l${pc_name} ${pc_private}")
    set(pc_private "")
  endif()
  configure_file(${PROJECT_SOURCE_DIR}/cmake/fastrnn.pc.in fastrnn.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fastrnn.pc DESTINATION ${library_place}/pkgconfig)
endif()
