# Each header compiles alone: a unity build, or what the including file had before, hides what one lacks.
file(GLOB headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/src/cpp
  ${PROJECT_SOURCE_DIR}/src/cpp/*.h ${PROJECT_SOURCE_DIR}/src/cpp/*/*.h ${PROJECT_SOURCE_DIR}/src/cpp/include/*/*.h*)
list(FILTER headers EXCLUDE REGEX "^python/|\\.in$") # the first need pybind11
set(alone "")
foreach(header IN LISTS headers)
  string(REGEX REPLACE "[/.]" "_" name ${header})
  set(source ${CMAKE_CURRENT_BINARY_DIR}/alone/${name}.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "#include \"${header}\"\n" @ONLY)
  list(APPEND alone ${source})
endforeach()
add_library(fastrnn_headers OBJECT ${alone})
target_link_libraries(fastrnn_headers PRIVATE fastrnn_options ${fastrnn_threads})
target_include_directories(fastrnn_headers PRIVATE ${PROJECT_SOURCE_DIR}/src/cpp/include
  ${PROJECT_BINARY_DIR}/generated/include)
target_compile_options(fastrnn_headers PRIVATE $<IF:$<BOOL:${MSVC}>,/W0,-w>) # functions nobody calls here
target_compile_definitions(fastrnn_headers PRIVATE FASTRNN_ISA_NAME=baseline FASTRNN_VECTOR_BYTES=16)
set_target_properties(fastrnn_headers PROPERTIES UNITY_BUILD OFF)
