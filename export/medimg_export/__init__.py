"""The workstation: data, training, evaluation, export. Needs `pip install 'medimg-edge[export]'`."""
